package report

import (
	"fmt"

	"github.com/livemigrate/migrate/internal/line"
)

// Severity is how much a finding matters.
type Severity string

// The severities.
const (
	Blocker Severity = "blocker" // the move would fail
	Warning Severity = "warning" // it may fail, or cost more than it should
	Note    Severity = "note"    // good to know
)

// Finding is one thing that stands against a move, or is worth knowing before it.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"`           // stable; docs/operations.md lists them
	Host     string   `json:"host,omitempty"` // the host it was found on
	Text     string   `json:"text"`
	Pid      int      `json:"pid,omitempty"`     // of the process, as its host numbers it; 0: it is not about one
	Process  string   `json:"process,omitempty"` // its name
	Cure     string   `json:"cure,omitempty"`
}

// String is the finding in one line, fit for a terminal: what it is, which process, and the cure.
func (f Finding) String() string {
	text := f.Text
	if f.Pid != 0 {
		text = fmt.Sprintf("process %d (%s) %s", f.Pid, f.Process, text)
	}
	if f.Cure != "" {
		text += ": " + f.Cure
	}
	return line.Printable(text)
}
