// Package process is what a process can ask the kernel about itself, its children and others.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// StartTime is when a process started, in clock ticks since boot (field 22 of /proc/PID/stat, proc(5)): together with
// the pid it names one process for ever. os.ErrProcessDone when there is none.
func StartTime(pid int) (uint64, error) {
	_, start, err := stat(pid)
	return start, err
}

// Alive tells whether the process is still the one that started then. A zombie is not alive.
func Alive(pid int, start uint64) bool {
	if pid <= 0 {
		return false
	}
	state, now, err := stat(pid)
	return err == nil && now == start && state != 'Z' && state != 'X'
}

// stat reads a process's state letter and start time.
func stat(pid int) (state byte, start uint64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, 0, fmt.Errorf("start time of process %d: %w", pid, os.ErrProcessDone)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("start time of process %d: %w", pid, err)
	}
	// The program's name stands in parentheses, and may hold parentheses and spaces itself.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	const startTime = 22 - 3 // the first field after the name is the third
	if len(fields) <= startTime {
		return 0, 0, fmt.Errorf("start time of process %d: cannot read %q", pid, text)
	}
	if start, err = strconv.ParseUint(string(fields[startTime]), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("start time of process %d: %w", pid, err)
	}
	return fields[0][0], start, nil
}

// BecomeSubreaper makes orphaned descendants this process's children. It survives exec, and is not inherited by children.
func BecomeSubreaper() error {
	return os.NewSyscallError("prctl(PR_SET_CHILD_SUBREAPER)", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

// NewSession detaches this process from its terminal and process group. A process that leads a session already is left
// as it is.
func NewSession() error {
	sid, err := unix.Getsid(0)
	if err == nil && sid == unix.Getpid() {
		return nil
	}
	_, err = unix.Setsid()
	return os.NewSyscallError("setsid", err)
}

// WaitAny blocks until some child has ended, and reaps it. syscall.ECHILD when there is none. Nothing else in this
// process may wait for children meanwhile.
func WaitAny() (pid int, status syscall.WaitStatus, err error) {
	for {
		pid, err = syscall.Wait4(-1, &status, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			return pid, status, os.NewSyscallError("wait4", err)
		}
	}
}

// SignalByName is the number of a signal by its name (SIGTERM), 0 for none of that name.
func SignalByName(name string) unix.Signal { return unix.SignalNum(name) }
