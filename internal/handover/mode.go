package handover

import (
	"errors"
	"fmt"
)

// Mode says which pages of a container's memory are at the peer when it resumes there.
type Mode string

// The modes. All of them but PostCopy and Hybrid have every page at the peer before COMMIT. These two promise less: until
// the last page has come both hosts and the link between them are needed. What waits for a page then stands still.
const (
	Auto     Mode = "auto"      // rounds, until the stop is as short as was asked for
	StopCopy Mode = "stop-copy" // all of it, sent while the container stands still
	PreCopy  Mode = "pre-copy"  // all of it; rounds, for as long as they make the stop shorter
	PostCopy Mode = "post-copy" // what it needs first; the rest follows while it runs
	Hybrid   Mode = "hybrid"    // rounds, then the rest while it runs
)

// ErrMode: there is no such mode. The text names those that there are.
var ErrMode = errors.New("use auto, pre-copy, stop-copy, post-copy or hybrid")

// ParseMode reads a mode by its name; an empty one is Auto.
func ParseMode(name string) (Mode, error) {
	switch m := Mode(name); m {
	case "":
		return Auto, nil
	case Auto, StopCopy, PreCopy, PostCopy, Hybrid:
		return m, nil
	default:
		return "", fmt.Errorf("mode %q is unknown: %w", name, ErrMode)
	}
}

// rounds tells whether memory is sent while the container runs.
func (m Mode) rounds() bool { return m != StopCopy && m != PostCopy }

// Later tells whether memory is left behind at the freeze, and follows when the container runs at the peer.
func (m Mode) Later() bool { return m == PostCopy || m == Hybrid }
