// Package report tells the story of a move: events while it happens, one result when it is over.
//
// Events are what `push --json` prints, one JSON object a line:
//
//	{"event":"phase","phase":"rootfs","at":"2026-01-02T15:04:05.123Z"}
//	{"event":"progress","phase":"rootfs","bytes":1048576,"total":52428800}
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

// The phases in their order. From Freeze on the container stands still.
const (
	Preflight Phase = "preflight"
	Rootfs    Phase = "rootfs"
	Precopy   Phase = "precopy"
	Freeze    Phase = "freeze"
	Dump      Phase = "dump"
	Transfer  Phase = "transfer"
	Restore   Phase = "restore"
	Resume    Phase = "resume"
)

// Phases lists them all.
func Phases() []Phase {
	return []Phase{Preflight, Rootfs, Precopy, Freeze, Dump, Transfer, Restore, Resume}
}

// Event is one thing that happened. Which fields are set depends on Event.
type Event struct {
	Event string    `json:"event"` // phase, progress, warning or result
	Phase Phase     `json:"phase,omitempty"`
	At    time.Time `json:"at,omitzero"`
	Bytes uint64    `json:"bytes,omitempty"`
	Total uint64    `json:"total,omitempty"`
	Text  string    `json:"text,omitempty"`
	*Result
}

// Round is one pass over memory while the container ran.
type Round struct {
	Pages uint64  `json:"pages"`
	Bytes uint64  `json:"bytes"`
	MS    float64 `json:"ms"`
}

// Result is the end of the story. Times are milliseconds on the source's clock.
type Result struct {
	Outcome     Outcome           `json:"outcome"`
	Mode        string            `json:"mode"`
	DowntimeMS  float64           `json:"downtime_ms"` // from the freeze to DONE
	TotalMS     float64           `json:"total_ms"`
	BytesSent   uint64            `json:"bytes_sent"`
	MemoryBytes uint64            `json:"memory_bytes"`
	Rounds      []Round           `json:"rounds"`
	Phases      map[Phase]float64 `json:"phases"`
	Container   string            `json:"container"`
	Source      string            `json:"source"`
	Destination string            `json:"destination"`
	Error       string            `json:"error,omitempty"`
}
