package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/livemigrate/migrate/tests/lab"
)

// watched is the container of a monitor with these descriptors: "" while it only begins. The file for the exit status is the last
// that a monitor opens.
func watched(descriptors []string) (id string) {
	for _, path := range descriptors {
		if dir, name := filepath.Split(path); name == "exit.json" {
			return filepath.Base(dir)
		}
	}
	return ""
}

// begun tells that each container of a host has its monitor, and that none of them only begins. Monitors alone do not tell: in the
// middle of its exec a process has no command line to know it by.
func begun(h *lab.Host) bool {
	containers, _ := filepath.Glob(fmt.Sprintf("/proc/%d/root/run/migrate/*/state.json", h.Holder()))
	monitors := h.Monitors()
	only := func(pid int) bool { return watched(lab.Descriptors(pid)) == "" }
	return len(monitors) == len(containers) && !slices.ContainsFunc(monitors, only)
}

// needed is all that the monitor of a container without a terminal, which a move has brought, may have open.
func needed(id string) []string {
	state := "/run/migrate/" + id
	return []string{
		os.DevNull, os.DevNull, "/var/lib/migrate/log/receive.log", // its own standard streams, from when it was a keeper
		"pipe", "/srv/" + id + ".log", // what the container writes, and where that goes
		"socket", state, state + "/exit.json", // who asks, and where its end will be told
		"anon_inode:[eventpoll]", "anon_inode:[eventfd]", // Go's poller
	}
}

// spare are the descriptors of a host's monitors that these have no use for. Go looks for limits of processors in its cgroup.
func spare(h *lab.Host) error {
	var list []string
	for _, pid := range h.Monitors() {
		open := lab.Descriptors(pid)
		id := watched(open)
		for _, name := range added(needed(id), open) {
			if !strings.HasPrefix(name, "/sys/fs/cgroup/") {
				list = append(list, fmt.Sprintf("the monitor of %s has %s", id, name))
			}
		}
	}
	if len(list) > 0 {
		return fmt.Errorf("%s: %s", h.Name, strings.Join(list, "; "))
	}
	return nil
}
