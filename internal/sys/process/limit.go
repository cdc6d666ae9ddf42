package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// RaiseFiles lets a process open as many files as its hard limit says, and returns that.
func RaiseFiles(pid int) (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return 0, os.NewSyscallError("prlimit", err)
	}
	limit.Cur = limit.Max
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		return 0, os.NewSyscallError("prlimit", err)
	}
	return limit.Max, nil
}

// Status is what /proc/PID/status says, as far as we ask.
type Status struct {
	// Pids are those of the process in the pid namespaces from this one's to its own; the first is the one asked for.
	Pids []int
	// Anonymous is how much private anonymous memory it has, in bytes, swapped out or not.
	Anonymous uint64
}

// ReadStatus reads it. os.ErrNotExist when there is no such process.
func ReadStatus(pid int) (Status, error) {
	var s Status
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return s, err
	}
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch string(fields[0]) {
		case "RssAnon:", "VmSwap:":
			kilobytes, err := strconv.ParseUint(string(fields[1]), 10, 64)
			if err != nil {
				return s, fmt.Errorf("read status of process %d: %q", pid, line)
			}
			s.Anonymous += kilobytes << 10
		case "NSpid:":
			for _, field := range fields[1:] {
				number, err := strconv.Atoi(string(field))
				if err != nil {
					return s, fmt.Errorf("read status of process %d: %q", pid, line)
				}
				s.Pids = append(s.Pids, number)
			}
		}
	}
	if len(s.Pids) == 0 {
		return s, fmt.Errorf("read status of process %d: no NSpid", pid)
	}
	return s, nil
}

// FileLimit is the hard limit of a process's open files, 0 for this one. EPERM: it belongs to another user, and this
// process lacks CAP_SYS_RESOURCE over it.
func FileLimit(pid int) (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return 0, os.NewSyscallError("prlimit", err)
	}
	return limit.Max, nil
}
