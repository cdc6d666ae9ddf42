package launch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
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

// startTime reads field 22 of /proc/PID/stat. The command before it may contain anything but the last parenthesis.
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read start time: %w", err)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const index = 22 - 3 // the first field after the command is number 3
	if len(fields) <= index {
		return 0, errors.New("read start time: short /proc/PID/stat")
	}
	return strconv.ParseUint(string(fields[index]), 10, 64)
}
