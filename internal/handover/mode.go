package handover

import (
	"errors"
	"fmt"
)

// Mode says which pages of a container's memory are at the peer when it resumes there.
type Mode string

// The modes. All of them but PostCopy and Hybrid have every page at the peer before COMMIT.
const (
	Auto     Mode = "auto"      // rounds, until the stop is as short as was asked for
	StopCopy Mode = "stop-copy" // all of it, sent while the container stands still
	PreCopy  Mode = "pre-copy"  // all of it; rounds, for as long as they make the stop shorter
	PostCopy Mode = "post-copy" // what it needs first; the rest follows while it runs
	Hybrid   Mode = "hybrid"    // rounds, then the rest while it runs
)

// ErrMode: there is no such mode, or it is not there yet. The text names those that are.
var ErrMode = errors.New("use auto, pre-copy or stop-copy")

// ParseMode reads a mode by its name; an empty one is Auto. Modes that are not there yet are refused by name.
func ParseMode(name string) (Mode, error) {
	switch m := Mode(name); m {
	case "":
		return Auto, nil
	case Auto, StopCopy, PreCopy:
		return m, nil
	case PostCopy, Hybrid:
		return "", fmt.Errorf("mode %s is not there yet: %w", m, ErrMode)
	default:
		return "", fmt.Errorf("mode %q is unknown: %w", name, ErrMode)
	}
}
