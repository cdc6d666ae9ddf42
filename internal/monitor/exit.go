package monitor

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const exitName = "exit.json"

// Exit is how a container ended. The monitor keeps it in exit.json of the state directory, which is empty until then.
type Exit struct {
	Status int       `json:"status"`           // as shells count: 128 + Signal for a signal
	Signal int       `json:"signal,omitempty"` // that ended init; 0 when it exited
	At     time.Time `json:"at"`
}

func newExit(status syscall.WaitStatus) *Exit {
	e := &Exit{Status: status.ExitStatus(), At: time.Now()}
	if status.Signaled() {
		e.Signal = int(status.Signal())
		e.Status = 128 + e.Signal
	}
	return e
}

// ReadExit reads how the container of the state directory ended; fs.ErrNotExist while it runs, or when it has no monitor.
func ReadExit(stateDir string) (*Exit, error) {
	path := filepath.Join(stateDir, exitName)
	text, err := os.ReadFile(path)
	if err == nil && len(text) == 0 {
		err = &fs.PathError{Op: "read", Path: path, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, fmt.Errorf("read exit status: %w", err)
	}
	e := &Exit{}
	if err := json.Unmarshal(text, e); err != nil {
		return nil, fmt.Errorf("read exit status: %w", err)
	}
	return e, nil
}

// openExit makes the file, still empty. Not later: when init ends the state directory may be about to be removed, and a
// new file in it would be in the way.
func openExit(state *os.Root) (*os.File, error) {
	file, err := state.OpenFile(exitName, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open exit status: %w", err)
	}
	return file, nil
}

// keepExit writes the status, in one piece.
func keepExit(file *os.File, e *Exit) error {
	text, err := json.Marshal(e)
	if err == nil {
		_, err = file.Write(append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep exit status: %w", err)
	}
	return nil
}
