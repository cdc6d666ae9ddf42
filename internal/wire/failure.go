package wire

import (
	"errors"

	"github.com/livemigrate/migrate/internal/line"
)

// Sentinels that cross hosts: an error that wraps one of them on one side does so on the other too.
var (
	// ErrVersion: the two ends speak different versions. Install the same release on both hosts.
	ErrVersion = errors.New("the peer speaks another version")
	// ErrExists: the peer has a container of this id. Delete it there, or pick another peer.
	ErrExists = errors.New("container with given ID already exists")
	// ErrNoSpace: the peer's disk or memory for images is full. Free some; the container runs on here.
	ErrNoSpace = errors.New("no space left on the peer")
	// ErrIncompatible: the peer lacks something that the container needs. The text names it.
	ErrIncompatible = errors.New("the peer can't take this container")
	// ErrRestore: CRIU could not restore the container at the peer. The text carries the cause.
	ErrRestore = errors.New("restore at the peer failed")
	// ErrUnknownMove: the peer has no record of that move.
	ErrUnknownMove = errors.New("the peer knows no such move")
	// ErrBusy: the peer is at another move of this container.
	ErrBusy = errors.New("another move of this container is under way")
	// ErrFull: the peer receives as many containers at once as it takes, or the container is larger than it takes. The text has
	// the limit, which is its operator's.
	ErrFull = errors.New("beyond the peer's limits")
	// ErrDiedHere: the peer had the container, and its host was started anew since. Nobody but the user can weigh the frozen
	// source against what came after: --force-source or --force-peer.
	ErrDiedHere = errors.New("it was running here and died with the host, which was started anew since; " +
		"end the move at the source with --force-source (it runs on from the freeze) or --force-peer")
	// ErrOwed: the container was let run at the peer and lacks memory that the frozen source alone holds, but nobody there can
	// give it that any more. Delete it there, and end the move at the source with --force-source.
	ErrOwed = errors.New("it was let run there without all of its memory, and nobody is left who could give it the rest: delete it there")
	// ErrEnded: the container ended at the peer, or was killed, before it had all of its memory. The frozen source is the only
	// copy that has all, though an older one: end the move there with --force-source or --force-peer.
	ErrEnded = errors.New("it was ended there before it had all of its memory: the frozen copy, from before it ran there, is the only whole one")
	// ErrFollowing: memory of the container follows, which takes a source that sends it: "migrate resolve" there.
	ErrFollowing = errors.New("it runs here without all of its memory, which only its source can send")
	// ErrPaid: the container has all of its memory. It never crosses hosts.
	ErrPaid = errors.New("it has all of its memory")
)

// code is a sentinel's name on the wire: never change one, only add.
type code struct {
	name     string
	sentinel error
}

// codes are in the order in which they count when an error wraps several: what was being done before what it failed of.
func codes() []code {
	return []code{
		{"restore", ErrRestore},
		{"version", ErrVersion},
		{"exists", ErrExists},
		{"no-space", ErrNoSpace},
		{"incompatible", ErrIncompatible},
		{"unknown-move", ErrUnknownMove},
		{"busy", ErrBusy},
		{"full", ErrFull},
		{"died-here", ErrDiedHere},
		{"owed", ErrOwed},
		{"ended", ErrEnded},
		{"following", ErrFollowing},
	}
}

// NewFailure makes an error fit for the wire: the code of the sentinel that it wraps, if any, and its text.
func NewFailure(err error) *Failure {
	f := &Failure{Code: "error", Text: cut(line.Of(err), MaxFailure)} // joined errors have a line each
	for _, c := range codes() {
		if errors.Is(err, c.sentinel) {
			f.Code = c.name
			break
		}
	}
	f.Findings = fit(FindingsOf(err))
	return f
}

// RemoteError is a peer's failure on this side. It unwraps to the sentinel of its code.
type RemoteError struct {
	Code, Text string
	Findings   []*Finding // of its preflight
}

func (e *RemoteError) Error() string { return "peer: " + line.Printable(e.Text) }

func (e *RemoteError) Unwrap() error {
	for _, c := range codes() {
		if c.name == e.Code {
			return c.sentinel
		}
	}
	return nil
}

// Err turns a failure back into an error; nil stays nil.
func (f *Failure) Err() error {
	if f == nil {
		return nil
	}
	return &RemoteError{Code: f.GetCode(), Text: f.GetText(), Findings: f.GetFindings()}
}
