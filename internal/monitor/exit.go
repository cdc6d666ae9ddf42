package monitor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const exitName = "exit.json"

// Exit is how a container ended. The monitor keeps it in exit.json of the state directory.
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
	text, err := os.ReadFile(filepath.Join(stateDir, exitName))
	if err != nil {
		return nil, fmt.Errorf("read exit status: %w", err)
	}
	e := &Exit{}
	if err := json.Unmarshal(text, e); err != nil {
		return nil, fmt.Errorf("read exit status: %w", err)
	}
	return e, nil
}

// keepExit writes the status at once or not at all. A state directory that is removed already needs none.
func keepExit(state *os.Root, e *Exit) error {
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("keep exit status: %w", err)
	}
	const temporary = exitName + ".new"
	err = state.WriteFile(temporary, text, 0o600)
	if err == nil {
		err = state.Rename(temporary, exitName)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep exit status: %w", err)
	}
	return nil
}
