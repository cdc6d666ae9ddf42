package launch

import (
	"fmt"
	"os"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/process"
)

// Process is a container's process and a child of the caller.
type Process struct {
	Pid       int    // in the caller's pid namespace
	StartTime uint64 // clock ticks after boot, as in /proc/PID/stat: pid and start time name a process for ever
	process   *os.Process
}

// Wait reaps the process and returns its exit status, 128+n for a death by signal n. It is called once.
func (p *Process) Wait() (int, error) {
	state, err := p.process.Wait()
	if err != nil {
		return -1, fmt.Errorf("wait for process %d: %w", p.Pid, err)
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return state.ExitCode(), nil
}

// Signal sends a signal; os.ErrProcessDone when the process has ended.
func (p *Process) Signal(sig syscall.Signal) error { return p.process.Signal(sig) }

// Close is for whoever does not Wait: the process goes on, and is reaped by its pid.
func (p *Process) Close() error { return p.process.Release() }

// sameProcess makes sure that what was done by pid was done to the process that started then. A number is given to
// another process only after its owner is gone: whoever has it still, had it all the time.
func sameProcess(pid int, start uint64) error {
	if now, err := process.StartTime(pid); err != nil || now != start {
		return fmt.Errorf("container's init %d is gone", pid)
	}
	return nil
}
