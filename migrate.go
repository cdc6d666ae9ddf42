// Package migrate moves running containers between hosts: their processes, memory, files and TCP connections go on at the
// peer as if nothing had happened.
//
// It is the front door for programs that do what the command `migrate push` does. A move is held by a process of its own,
// made from the migrate program, so that the caller's death never costs the container: see [Push].
package migrate

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/keeper"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/transport"
)

// What moves report.
type (
	// Result is how a move ended.
	Result = report.Result
	// Event is one thing that happened during a move.
	Event = report.Event
	// Outcome is Moved, Kept, Refused or Unknown; of a Drain also Skipped.
	Outcome = report.Outcome
	// Phase is a stretch of a move.
	Phase = report.Phase
	// Mode says which pages of the memory are at the peer when the container resumes there.
	Mode = handover.Mode
	// Round is one pass over the container's memory.
	Round = report.Round
	// Slowed is how far the container was slowed down before it.
	Slowed = report.Slowed
	// Prediction is what was expected of the stop.
	Prediction = report.Prediction
	// Certificates are the paths of this host's certificate and key, and of the authority that both sides trust.
	Certificates = transport.Certificates
)

// The modes of a move. All have every page at the peer before the container is given away.
const (
	Auto     = handover.Auto     // rounds while it runs, until the stop is as short as PushOptions.MaxDowntime asks for
	StopCopy = handover.StopCopy // no rounds: all of it while the container stands still
	PreCopy  = handover.PreCopy  // rounds while it runs, for as long as they make the stop shorter
	PostCopy = handover.PostCopy // no rounds, and nothing in the stop: the memory follows while it runs at the peer
	Hybrid   = handover.Hybrid   // rounds, and the rest follows
)

// ParseMode reads a mode by its name. The error names those that there are.
func ParseMode(name string) (Mode, error) { return handover.ParseMode(name) }

// The outcomes of a move.
const (
	Moved   = report.Moved   // the container runs at the peer
	Kept    = report.Kept    // something failed; it runs on at the source
	Refused = report.Refused // the peer, or the source's own checks, said no; nothing was touched
	Unknown = report.Unknown // frozen at the source until Resolve
	Skipped = report.Skipped // one of several that was not begun, because of others or because the context ended
)

var (
	// ErrOutcomeUnknown: the link broke between COMMIT and DONE. The source is frozen; call Resolve.
	ErrOutcomeUnknown = handover.ErrOutcomeUnknown
	// ErrExists: the peer has a container of this id.
	ErrExists = wire.ErrExists
	// ErrVersion: the peer speaks another version of the protocol.
	ErrVersion = wire.ErrVersion
	// ErrStillFrozen: the move failed and the container could not be made to run on. The cause is in the text; then Resolve.
	ErrStillFrozen = handover.ErrStillFrozen
	// ErrNoMove: no move of this container waits for an end.
	ErrNoMove = keeper.ErrNoMove
)

// Host says where this host keeps what, and how it runs containers. The zero value is the command's defaults.
type Host struct {
	Root          string       // state root; default /run/migrate
	Journals      string       // journals of moves, must survive a reboot; default /var/lib/migrate/journal
	CRIU          string       // CRIU program; default: MIGRATE_CRIU, PATH, /opt/migrate/criu/criu
	NetworkHook   string       // program that connects network namespaces that have a path; "" for none
	SystemdCgroup bool         // cgroups are made by systemd
	Program       string       // the migrate program that holds moves; default: the running executable
	Debug         bool         // the keepers' logs say more
	Log           *slog.Logger // nil discards
}

func (h Host) fill() (Host, error) {
	if h.Log == nil {
		h.Log = slog.New(slog.DiscardHandler)
	}
	if h.Program == "" {
		program, err := os.Executable()
		if err != nil {
			return h, err
		}
		h.Program = program
	}
	places := h.places("")
	h.Root, h.Journals = places.Root, places.Journals
	if strings.Contains(h.CRIU, "/") { // otherwise it is looked for on PATH
		if err := absolute(&h.CRIU); err != nil {
			return h, err
		}
	}
	return h, absolute(&h.Root, &h.Journals, &h.NetworkHook)
}

func (h Host) places(bundles string) keeper.Places {
	return keeper.Places{Root: h.Root, Journals: h.Journals, Bundles: bundles, NetworkHook: h.NetworkHook}.Fill()
}

// absolute makes paths mean the same to a keeper, whose working directory is another one.
func absolute(paths ...*string) error {
	for _, path := range paths {
		if *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return nil
}
