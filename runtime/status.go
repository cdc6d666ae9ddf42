package runtime

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Status is what a container is doing. It is never stored: each look derives it from the kernel.
type Status int

// The states of the OCI specification, plus paused. Restored is a running container that came from an image set and has
// not been looked at since; from outside it is "running".
const (
	Stopped Status = iota
	Created
	Running
	Paused
	Restored
)

func (s Status) String() string {
	switch s {
	case Created:
		return "created"
	case Running, Restored:
		return "running"
	case Paused:
		return "paused"
	default:
		return "stopped"
	}
}

// next returns what a container may become from each state, besides staying what it is.
func (s Status) next() []Status {
	switch s {
	case Created:
		return []Status{Running, Paused, Stopped}
	case Running:
		return []Status{Paused, Stopped}
	case Paused:
		return []Status{Running, Stopped}
	case Restored:
		return []Status{Running, Stopped}
	default:
		return []Status{Running, Restored}
	}
}

// become checks a change; a *TransitionError says that there is no such change.
func (s Status) become(to Status) error {
	if s == to || slices.Contains(s.next(), to) {
		return nil
	}
	return &TransitionError{From: s, To: to}
}

// Status looks at the kernel: frozen is paused, without a live init it is stopped, with the exec fifo it waits for
// Start.
func (c *Container) Status() (Status, error) {
	frozen, err := c.group.Frozen()
	if err != nil {
		return Stopped, err
	}
	switch {
	case frozen:
		return Paused, nil
	case !c.alive():
		return Stopped, nil
	}
	_, err = os.Stat(filepath.Join(c.dir, execFifo))
	switch {
	case err == nil:
		return Created, nil
	case errors.Is(err, fs.ErrNotExist):
		return Running, nil
	}
	return Stopped, err
}
