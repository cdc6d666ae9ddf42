package runtime

import (
	"errors"
	"fmt"
	"os"

	"github.com/livemigrate/migrate/internal/sys/pidfd"
	"github.com/livemigrate/migrate/internal/sys/process"
	"golang.org/x/sys/unix"
)

// procSignal sends a signal to that process and no other: the pidfd pins it before its start time is compared.
// ErrNotRunning.
func procSignal(pid int, start uint64, sig unix.Signal) error {
	if pid <= 0 { // there was never an init
		return ErrNotRunning
	}
	pinned, err := pidfd.Open(pid)
	if errors.Is(err, os.ErrProcessDone) {
		return ErrNotRunning
	}
	if err != nil {
		return err
	}
	defer pinned.Close()
	if !process.Alive(pid, start) {
		return ErrNotRunning
	}
	err = pidfd.Signal(pinned, sig)
	if errors.Is(err, os.ErrProcessDone) {
		return ErrNotRunning
	}
	return err
}

// descriptors are the targets of a process's first three descriptors ("pipe:[123]", "/dev/null"): what a checkpoint
// needs to know about them, and what the process itself may change later.
func descriptors(pid int) ([]string, error) {
	targets := make([]string, 3)
	for i := range targets {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, i))
		if errors.Is(err, os.ErrPermission) {
			continue // a process that is not dumpable, or another user's
		}
		if err != nil {
			return nil, fmt.Errorf("read descriptor %d of process %d: %w", i, pid, err)
		}
		targets[i] = target
	}
	return targets, nil
}
