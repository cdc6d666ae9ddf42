package track

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// task is a process as it was when it was looked at.
type task struct {
	pid, vpid int
	start     uint64
	image     [2]uint64 // where the program and its stack begin: exec moves them
	state     byte      // the letter of proc(5)
	tracer    int       // 0 for none
	locked    bool      // it has mlocked memory
	pinned    bool      // it has pages pinned for good: io_uring's buffers, RDMA
}

// key names a process for ever.
type key struct {
	pid   int
	start uint64
}

func (t *task) key() key { return key{t.pid, t.start} }

// tasks are the processes of the set that have memory.
func (s *Set) tasks() ([]task, error) {
	pids, err := s.pids()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	slices.Sort(pids)
	var tasks []task
	for _, pid := range slices.Compact(pids) {
		t, err := readTask(pid)
		switch {
		case errors.Is(err, os.ErrProcessDone):
		case err != nil:
			return nil, fmt.Errorf("process %d: %w", pid, err)
		case t.state == 'Z' || t.state == 'X':
			s.log.Debug("a zombie has no memory", "pid", pid)
		default:
			tasks = append(tasks, t)
		}
	}
	return tasks, nil
}

func readTask(pid int) (task, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return task{}, gone(err)
	}
	t := task{pid: pid, vpid: pid}
	// The fields of proc(5) from the third on: before it stands the name, in parentheses, and may hold anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const startTime, startCode, startStack, first = 22, 26, 28, 3
	if len(fields) <= startStack-first {
		return task{}, fmt.Errorf("read stat: %q", stat)
	}
	t.state = fields[0][0]
	for at, to := range map[int]*uint64{startTime: &t.start, startCode: &t.image[0], startStack: &t.image[1]} {
		if *to, err = strconv.ParseUint(string(fields[at-first]), 10, 64); err != nil {
			return task{}, fmt.Errorf("read stat: %w", err)
		}
	}
	if err := t.readStatus(); err != nil {
		return task{}, err
	}
	return t, nil
}

func (t *task) readStatus() error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", t.pid))
	if err != nil {
		return gone(err)
	}
	for line := range bytes.Lines(text) {
		key, value, _ := strings.Cut(string(line), ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		switch key {
		case "TracerPid":
			t.tracer, err = strconv.Atoi(fields[0])
		case "NSpid":
			t.vpid, err = strconv.Atoi(fields[len(fields)-1])
		case "VmLck":
			t.locked = fields[0] != "0"
		case "VmPin":
			t.pinned = fields[0] != "0"
		}
		if err != nil {
			return fmt.Errorf("read status: %w", err)
		}
	}
	return nil
}

// threads are the threads of a process that can be stopped, those first that run: they lose nothing by it, while what waits
// in epoll_wait is woken.
func threads(pid int) (tids []int, err error) {
	dirs, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
	if err != nil {
		return nil, err
	}
	var waiting []int
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue
		}
		tid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		_, rest, _ := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte(" "))
		switch {
		case bytes.HasPrefix(rest, []byte("R")):
			tids = append(tids, tid)
		case bytes.HasPrefix(rest, []byte("S")):
			waiting = append(waiting, tid)
		}
	}
	return append(tids, waiting...), nil
}

// hasDirect tells whether a process has a file open for direct input and output: the disk then writes into pages that were
// looked up in the page table before, and may do so after they were found clean.
func hasDirect(pid int) bool {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return false
	}
	for _, fd := range fds {
		name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		if err != nil || !strings.HasPrefix(name, "/") {
			continue
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd.Name()))
		if err != nil {
			continue
		}
		_, rest, _ := bytes.Cut(info, []byte("flags:\t"))
		octal, _, _ := bytes.Cut(rest, []byte("\n"))
		flags, err := strconv.ParseUint(string(octal), 8, 64)
		if err == nil && flags&syscall.O_DIRECT != 0 {
			return true
		}
	}
	return false
}

// gone gives the errors by which /proc says that a process has ended one name.
func gone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}
