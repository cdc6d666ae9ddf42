package keeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/livemigrate/migrate/internal/sys/pipe"
)

// unread is output that is taken from a container's pipes to be sent to the peer. It is kept beside the container's state
// until the move is over, because a container that does not move gets it back, from another keeper when this one is killed.
// It is not made durable: the pipes, and the container, are not either.
type unread struct {
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"` // empty when it is the same pipe
}

const unreadName = "unread-output.json"

func (u *unread) take(path string, to *[]byte) (err error) {
	if path == "" { // no pipe, or closed everywhere
		return nil
	}
	*to, err = pipe.Take(path)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return err
}

func (u *unread) empty() bool { return len(u.Stdout)+len(u.Stderr) == 0 }

func (u *unread) equal(other *unread) bool {
	return bytes.Equal(u.Stdout, other.Stdout) && bytes.Equal(u.Stderr, other.Stderr)
}

// keep is all or nothing.
func (u *unread) keep(stateDir string) error {
	if u.empty() {
		return forgetUnread(stateDir)
	}
	path := filepath.Join(stateDir, unreadName)
	data, err := json.Marshal(u)
	if err == nil {
		err = os.WriteFile(path+newSuffix, data, 0o600)
	}
	if err == nil {
		err = os.Rename(path+newSuffix, path)
	}
	if err != nil {
		return fmt.Errorf("keep unread output: %w", errors.Join(err, ignoreMissing(os.Remove(path+newSuffix))))
	}
	return nil
}

func forgetUnread(stateDir string) error {
	err := os.Remove(filepath.Join(stateDir, unreadName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// restoreOutput is for a container that does not move, before it runs on: what it writes comes after. It runs in any case.
func (c *container) restoreOutput() {
	if err := c.giveBackUnread(); err != nil {
		c.log.Error("output of the container is lost", "error", err)
	}
}

func (c *container) giveBackUnread() error {
	data, err := os.ReadFile(filepath.Join(c.StateDir(), unreadName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("give unread output back: %w", err)
	}
	u, err := decode[unread]("unread output", data)
	if err != nil {
		return err
	}
	return c.giveBack(u)
}

func (c *container) giveBack(u *unread) error {
	var err error
	for fd, data := range map[int][]byte{1: u.Stdout, 2: u.Stderr} {
		path := c.pipePath(fd)
		switch {
		case len(data) == 0:
		case path == "":
			err = errors.Join(err, fmt.Errorf("give unread output back: nobody has the pipe of %d bytes open", len(data)))
		case !c.stillHolds(fd, data):
			err = errors.Join(err, pipe.Return(path, data))
		}
	}
	return errors.Join(err, forgetUnread(c.StateDir()))
}

// stillHolds tells whether a pipe holds what was to be taken from it, or the end of that: whoever wanted it was killed before, or
// when it was back.
func (c *container) stillHolds(fd int, data []byte) bool {
	holds, err := c.peek(fd)
	return err == nil && len(holds.Data) > 0 && bytes.HasSuffix(data, holds.Data)
}
