// Package report tells the story of a move: events while it happens, one result when it is over.
//
// Events are what `push --json` prints, one JSON object a line:
//
//	{"event":"phase","phase":"rootfs","at":"2026-01-02T15:04:05.123Z"}
//	{"event":"progress","phase":"rootfs","bytes":1048576,"total":52428800}
//	{"event":"round","phase":"precopy","at":"...","round":{"number":1,"pages":131072,"bytes":536870912,"ms":301.5}}
//	{"event":"slow","phase":"precopy","at":"...","cpu_percent":80}
//	{"event":"result","outcome":"moved","downtime_ms":87.2, ...}
package report

import "time"

// Outcome is how a move ended, seen from the source.
type Outcome string

// The outcomes, and the exit code of push for each.
const (
	Moved   Outcome = "moved"   // 0: it runs at the peer
	Kept    Outcome = "kept"    // 1: something failed, it runs on at the source
	Refused Outcome = "refused" // 4: the preflight or the peer said no, nothing was touched
	Unknown Outcome = "unknown" // 3: frozen at the source until `migrate resolve`
	Skipped Outcome = "skipped" // 1: one of several that was not begun, because of others or of Ctrl-C; it runs on at the source
)

// ExitCode is what the program ends with.
func (o Outcome) ExitCode() int {
	switch o {
	case Moved:
		return 0
	case Unknown:
		return 3
	case Refused:
		return 4
	default:
		return 1
	}
}

// Phase is a stretch of a move.
type Phase string

// The phases in their order. From Freeze to Resume the container stands still.
const (
	Preflight Phase = "preflight"
	Rootfs    Phase = "rootfs"
	Precopy   Phase = "precopy"
	Freeze    Phase = "freeze"
	Dump      Phase = "dump"
	Transfer  Phase = "transfer"
	Restore   Phase = "restore"
	Resume    Phase = "resume"
	Follow    Phase = "follow" // memory that was left behind; the container runs at the peer. Only where there is such
)

// Phases lists those that every move has.
func Phases() []Phase {
	return []Phase{Preflight, Rootfs, Precopy, Freeze, Dump, Transfer, Restore, Resume}
}

// Event is one thing that happened. Which fields are set depends on Event.
type Event struct {
	Event string    `json:"event"`        // phase, progress, round, slow, warning or result
	ID    string    `json:"id,omitempty"` // of the container
	Phase Phase     `json:"phase,omitempty"`
	At    time.Time `json:"at,omitzero"`
	Bytes uint64    `json:"bytes,omitempty"`
	Total uint64    `json:"total,omitempty"`
	Text  string    `json:"text,omitempty"`
	Round *Round    `json:"round,omitempty"`
	CPU   int       `json:"cpu_percent,omitempty"` // of slow: what the container keeps of the processor time that it took
	*Result
}

// Round is one pass over memory, while the container ran or, the last one, while it stood still.
type Round struct {
	Number      int     `json:"number"`                          // from 1
	Pages       uint64  `json:"pages"`                           // of 4096 bytes, that were read or compared
	Bytes       uint64  `json:"bytes"`                           // on the wire
	MS          float64 `json:"ms"`                              // until the peer had stored them; until they were sent, of a frozen one
	PredictedMS float64 `json:"predicted_downtime_ms,omitempty"` // of a stop right after it
	Frozen      bool    `json:"frozen,omitempty"`                // inside the stop
}

// Prediction is what was expected of the stop when the rounds had ended: what came of it is the Result's DowntimeMS.
type Prediction struct {
	DowntimeMS  float64 `json:"downtime_ms"`
	TargetMS    float64 `json:"target_ms,omitempty"` // what --max-downtime asks for, in the mode auto
	Reason      string  `json:"reason"`              // why there were no more rounds
	DirtyBytes  uint64  `json:"dirty_bytes"`         // to be sent in the stop, on the wire
	BytesPerSec uint64  `json:"bytes_per_second"`    // what the link has shown
}

// Slowed is how far, and for how long, the container was slowed down so that a stop became as short as was asked for.
type Slowed struct {
	CPU int     `json:"cpu_percent"` // what it kept at last of the processor time that it took
	MS  float64 `json:"ms"`          // until the stop
}

// Result is the end of the story. Times are milliseconds on the source's clock.
type Result struct {
	Outcome     Outcome           `json:"outcome"`
	Mode        string            `json:"mode"`        // as it came out: stop-copy, or pre-copy with rounds
	DowntimeMS  float64           `json:"downtime_ms"` // from the freeze to DONE
	JournalMS   float64           `json:"journal_ms"`  // of it, the wait on both hosts until what ends the move is written
	TotalMS     float64           `json:"total_ms"`
	BytesSent   uint64            `json:"bytes_sent"`
	MemoryBytes uint64            `json:"memory_bytes"`
	Rounds      []Round           `json:"rounds"`
	Prediction  *Prediction       `json:"prediction,omitempty"` // of a move that made rounds
	Slowed      *Slowed           `json:"slowed,omitempty"`     // with --auto-converge, where it was needed
	Phases      map[Phase]float64 `json:"phases"`
	Container   string            `json:"container"`
	Source      string            `json:"source"`
	Destination string            `json:"destination"`
	Warnings    []string          `json:"warnings,omitempty"`
	Findings    []Finding         `json:"findings,omitempty"` // what a refused move was refused for
	Error       string            `json:"error,omitempty"`
}
