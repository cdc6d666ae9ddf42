package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A pid is reused; a pid together with its start time (clock ticks since boot, field 22 of /proc/PID/stat) is not.

// procStat reads the state letter and the start time of a process.
func procStat(pid int) (state byte, start uint64, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	// The name is in parentheses and may hold anything, parentheses too: what follows the last one counts.
	_, rest, ok := lastCut(data, ") ")
	fields := bytes.Fields(rest)
	const startField = 22 - 3 // the first field after the name is number 3
	if !ok || len(fields) <= startField {
		return 0, 0, fmt.Errorf("parse /proc/%d/stat: %q", pid, data)
	}
	start, err = strconv.ParseUint(string(fields[startField]), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("parse /proc/%d/stat: %w", pid, err)
	}
	return fields[0][0], start, nil
}

func lastCut(data []byte, sep string) (before, after []byte, found bool) {
	i := bytes.LastIndex(data, []byte(sep))
	if i < 0 {
		return data, nil, false
	}
	return data[:i], data[i+len(sep):], true
}

// procAlive tells whether the process is still the one that started then. A zombie is not alive.
func procAlive(pid int, start uint64) bool {
	if pid <= 0 {
		return false
	}
	state, now, err := procStat(pid)
	return err == nil && now == start && state != 'Z' && state != 'X'
}

// procSignal sends a signal to that process and no other: the pidfd pins it before its start time is compared.
func procSignal(pid int, start uint64, sig unix.Signal) error {
	if pid <= 0 { // there was never an init
		return ErrNotRunning
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return ErrNotRunning
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if !procAlive(pid, start) {
		return ErrNotRunning
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return ErrNotRunning
		}
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	return nil
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
