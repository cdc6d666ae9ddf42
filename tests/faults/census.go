package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/livemigrate/migrate/tests/lab"
)

// census is what there is on a host that a move can leave behind, by name.
type census []string

// count takes it.
func (w *world) count(h *lab.Host) (census, error) {
	var all census
	for _, part := range []struct {
		kind string
		list func(*lab.Host) ([]string, error)
	}{
		{"process", w.processes},
		{"mount", (*lab.Host).Mounts},
		{"cgroup", w.cgroups},
		{"link", links},
		{"file", files},
		{"name", names},
	} {
		names, err := part.list(h)
		if err != nil {
			return nil, fmt.Errorf("count %ss on %s: %w", part.kind, h.Name, err)
		}
		for _, name := range names {
			all = append(all, part.kind+" "+name)
		}
	}
	return all, nil
}

// beyond are the names that are not in another census.
func (c census) beyond(other census) []string {
	left := slices.Clone(other)
	var more []string
	for _, name := range c {
		if i := slices.Index(left, name); i >= 0 {
			left = slices.Delete(left, i, i+1)
		} else {
			more = append(more, name)
		}
	}
	return more
}

// processes but the holder of the namespaces, sshd's listener and serve.
func (w *world) processes(h *lab.Host) ([]string, error) {
	var list []string
	for _, pid := range h.Pids() {
		if w.stays(h, pid) {
			continue
		}
		cmdline, err := os.ReadFile("/proc/" + pid + "/cmdline")
		if err != nil || len(cmdline) == 0 { // gone, or waits to be reaped
			continue
		}
		list = append(list, strings.ReplaceAll(strings.TrimRight(string(cmdline), "\x00"), "\x00", " ")+" ("+pid+")")
	}
	return list, nil
}

// stays tells whether a process is the host's own.
func (w *world) stays(h *lab.Host, pid string) bool {
	if pid == strconv.Itoa(h.Holder()) || h == w.B && w.server != nil && pid == strconv.Itoa(w.server.Cmd.Process.Pid) {
		return true
	}
	sshd, err := os.ReadFile(root(h, "/run/sshd.pid"))
	return err == nil && strings.TrimSpace(string(sshd)) == pid
}

// root is a path on the host as it shows from outside.
func root(h *lab.Host, path string) string {
	return fmt.Sprintf("/proc/%d/root%s", h.Holder(), path)
}

// tops are the lab's cgroups, one a line for each hierarchy; those of its hosts are below.
func (w *world) tops() string {
	text, _ := os.ReadFile(filepath.Join("/var/lib/migrate-lab", w.name, "cgroups"))
	return string(text)
}

func (w *world) cgroups(h *lab.Host) ([]string, error) {
	var list []string
	for top := range strings.Lines(w.tops()) {
		names, err := below(filepath.Join(strings.TrimSpace(top), h.Name[len(h.Name)-1:]), fs.FileMode.IsDir)
		if err != nil {
			return nil, err
		}
		list = append(list, names...)
	}
	return list, nil
}

// links are those of the host's network.
func links(h *lab.Host) ([]string, error) {
	ns, err := netns.GetFromPid(h.Holder())
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns, syscall.NETLINK_ROUTE) // the others of netlink's families may be missing
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	found, err := handle.LinkList()
	if err != nil {
		return nil, err
	}
	var list []string
	for _, l := range found {
		list = append(list, l.Attrs().Name)
	}
	return list, nil
}

// files of containers and moves: on /run, and in the memory that images go to.
func files(h *lab.Host) ([]string, error) {
	var list []string
	for _, dir := range []string{"/run", "/dev/shm"} {
		names, err := below(root(h, dir), func(fs.FileMode) bool { return true })
		if err != nil {
			return nil, err
		}
		list = append(list, names...)
	}
	list = slices.DeleteFunc(list, func(path string) bool {
		name := filepath.Base(path)
		return strings.HasPrefix(name, "cpuinfo-") || strings.HasPrefix(name, "cpu-passed-") || strings.HasPrefix(name, "criu.kdat")
	})
	for i, path := range list {
		list[i] = strings.TrimPrefix(path, root(h, ""))
	}
	return list, nil
}

// names that a restore gives to deleted files, and the notes of them.
func names(h *lab.Host) ([]string, error) {
	var list []string
	for _, dir := range []string{filepath.Dir(bundle), "/var/lib/migrate"} {
		found, err := below(root(h, dir), fs.FileMode.IsRegular)
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			if strings.HasPrefix(filepath.Base(path), ".migrate-deleted-") || filepath.Base(filepath.Dir(path)) == "deleted" {
				list = append(list, strings.TrimPrefix(path, root(h, "")))
			}
		}
	}
	return list, nil
}

func below(dir string, want func(fs.FileMode) bool) ([]string, error) {
	var list []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil && path == dir:
			return err
		case err != nil:
			return fs.SkipDir // gone while we look
		case path != dir && want(entry.Type()):
			list = append(list, path)
		}
		return nil
	})
	return list, err
}

// rules are the packet filter's in the network of a process.
func rules(pid int) ([]string, error) {
	out, err := exec.Command("nsenter", "--target", strconv.Itoa(pid), "--net", "nft", "list", "ruleset").Output()
	if err != nil {
		return nil, fmt.Errorf("list packet filter: %w", err)
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" && line != "}" {
			list = append(list, line)
		}
	}
	return list, nil
}
