// Package terminal keeps the mode of terminals that other processes have open.
//
// CRIU reads what waits in a terminal without blocking, and sets O_NONBLOCK on the processes' own open file for that. It takes
// it back when a dump ends well, but not when it is refused (CRIU 4.2 and 4.3, criu/tty.c): a shell or an interpreter whose
// read on its terminal then fails with EAGAIN ends.
package terminal

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/sys/pidfd"
)

// Blocking is a terminal that a process has open in blocking mode.
type Blocking struct {
	Pid  int    `json:"pid"`
	FD   int    `json:"fd"`
	Path string `json:"path"`
}

// ListBlocking finds them in processes that stand still. One that has ended has none.
func ListBlocking(pids []int) ([]Blocking, error) {
	var found []Blocking
	for _, pid := range pids {
		ofProcess, err := listProcess(pid)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("list terminals of process %d: %w", pid, err)
		}
		found = append(found, ofProcess...)
	}
	return found, nil
}

func listProcess(pid int) ([]Blocking, error) {
	proc := "/proc/" + strconv.Itoa(pid)
	entries, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return nil, err
	}
	var found []Blocking
	for _, entry := range entries {
		path, err := os.Readlink(proc + "/fd/" + entry.Name())
		if err != nil {
			return nil, err
		}
		if !isTerminal(path) {
			continue
		}
		info, err := os.ReadFile(proc + "/fdinfo/" + entry.Name())
		if err != nil {
			return nil, err
		}
		flags, err := parseFlags(string(info))
		if err != nil {
			return nil, err
		}
		if flags&unix.O_NONBLOCK != 0 {
			continue
		}
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			return nil, err
		}
		found = append(found, Blocking{Pid: pid, FD: fd, Path: path})
	}
	return found, nil
}

// isTerminal goes by the names that the kernel gives: either end of a pty, and what CRIU dumps besides.
func isTerminal(path string) bool {
	return strings.HasPrefix(path, "/dev/pts/") || strings.HasPrefix(path, "/dev/tty") ||
		strings.HasSuffix(path, "/ptmx") || path == "/dev/console"
}

// parseFlags reads the line "flags:" of a fdinfo file, which is octal.
func parseFlags(info string) (int64, error) {
	_, rest, _ := strings.Cut(info, "flags:")
	line, _, _ := strings.Cut(rest, "\n")
	flags, err := strconv.ParseInt(strings.TrimSpace(line), 8, 64)
	if err != nil {
		return 0, fmt.Errorf("read open file's flags: %w", err)
	}
	return flags, nil
}

// Restore makes them block again. The processes must still stand still, and be traceable by this one (Linux 5.6).
func Restore(terminals []Blocking) error {
	var errs []error
	for _, t := range terminals {
		if err := t.restore(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, fmt.Errorf("make %s of process %d block again: %w", t.Path, t.Pid, err))
		}
	}
	return errors.Join(errs...)
}

func (t Blocking) restore() error {
	process, err := pidfd.Open(t.Pid)
	if err != nil {
		return err
	}
	defer process.Close()
	file, err := pidfd.GetFD(process, t.FD)
	if err != nil {
		return err
	}
	defer file.Close()
	// O_NONBLOCK belongs to the open file, not to the descriptor: this changes it for the process.
	return os.NewSyscallError("fcntl", unix.SetNonblock(int(file.Fd()), false))
}
