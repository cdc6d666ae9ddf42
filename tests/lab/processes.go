package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Holder is the process that keeps the host's namespaces. It is no process of the host's.
func (h *Host) Holder() int {
	text, _ := os.ReadFile(filepath.Join(h.dir, "pid"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

// Mounts are the places of all that is mounted on the host.
func (h *Host) Mounts() ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", h.Holder()))
	if err != nil {
		return nil, err
	}
	var list []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			list = append(list, fields[4])
		}
	}
	return list, nil
}

// Keepers are the processes that hold a move on the host.
func (h *Host) Keepers() []int {
	return h.processes(func(cmdline []byte, _ int) bool { return bytes.Contains(cmdline, []byte("\x00keeper\x00")) })
}

// Monitors are the processes that stay with detached containers on the host.
func (h *Host) Monitors() []int {
	return h.processes(func(cmdline []byte, _ int) bool { return bytes.Contains(cmdline, []byte("\x00monitor\x00")) })
}

// CRIUs are CRIU's processes on the host. While it dumps it names itself after its task.
func (h *Host) CRIUs() []int {
	return h.processes(func(cmdline []byte, _ int) bool {
		return bytes.Contains(cmdline, []byte("\x00swrk\x00")) || bytes.Contains(cmdline, []byte("criu: "))
	})
}

// AwaitCRIUs are they, as soon as there is one.
func (h *Host) AwaitCRIUs() ([]int, error) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if pids := h.CRIUs(); len(pids) > 0 {
			return pids, nil
		}
	}
	return nil, fmt.Errorf("%s starts no CRIU", h.Name)
}

// Feeders are those that put memory in its place. Their holders, which look the same from outside but have one thread, are not
// among them.
func (h *Host) Feeders() []int {
	return h.processes(func(cmdline []byte, pid int) bool {
		if !bytes.HasSuffix(cmdline, []byte("\x00feed\x00")) {
			return false
		}
		threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
		return err == nil && len(threads) > 1
	})
}

func (h *Host) processes(match func(cmdline []byte, pid int) bool) []int {
	var pids []int
	for _, text := range h.Pids() {
		cmdline, err := os.ReadFile("/proc/" + text + "/cmdline")
		if err != nil {
			continue
		}
		if pid, _ := strconv.Atoi(text); match(cmdline, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Named are those that run a program of this name.
func (h *Host) Named(program string) []int {
	return h.processes(func(cmdline []byte, _ int) bool {
		name, _, _ := bytes.Cut(cmdline, []byte{0})
		return filepath.Base(string(name)) == program
	})
}

// Descriptors are what a process has open: paths, and kinds ("pipe", "socket", "anon_inode:[eventpoll]") of what has none.
func Descriptors(pid int) []string {
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	entries, _ := os.ReadDir(dir)
	var list []string
	for _, entry := range entries {
		target, err := os.Readlink(dir + entry.Name())
		if err != nil {
			continue // closed while we look
		}
		if kind, _, numbered := strings.Cut(target, ":["); numbered && kind != "anon_inode" {
			target = kind
		}
		list = append(list, target)
	}
	return list
}
