package launch

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/runtime/internal/bootstrap"
)

// procName is a namespace type as /proc/PID/ns spells it, "" for an unknown one.
func procName(kind specs.LinuxNamespaceType) string {
	switch kind {
	case specs.MountNamespace:
		return "mnt"
	case specs.NetworkNamespace:
		return "net"
	case specs.UserNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.CgroupNamespace,
		specs.TimeNamespace:
		return string(kind)
	}
	return ""
}

// createNamespaces is the message for a new container: which namespaces of the spec are made, which joined.
func createNamespaces(spec *specs.Spec, rootless bool) (*bootstrap.Message, error) {
	m := &bootstrap.Message{Rootless: rootless}
	if adj := spec.Process.OOMScoreAdj; adj != nil {
		m.OOMScoreAdj = strconv.Itoa(*adj)
	}
	for _, ns := range spec.Linux.Namespaces {
		name := procName(ns.Type)
		if name == "" {
			return nil, fmt.Errorf("unknown namespace type %q", ns.Type)
		}
		if ns.Path != "" {
			m.Namespaces = append(m.Namespaces, bootstrap.Namespace{Type: name, Path: ns.Path})
			continue
		}
		m.CloneFlags |= bootstrap.CloneFlag(name)
	}
	if m.CloneFlags&unix.CLONE_NEWTIME != 0 {
		m.TimeOffsets = spec.Linux.TimeOffsets
	}
	m.Setgroups = true
	if m.CloneFlags&unix.CLONE_NEWUSER == 0 {
		return m, nil
	}
	m.UIDMap, m.GIDMap = spec.Linux.UIDMappings, spec.Linux.GIDMappings
	if !rootless {
		return m, nil
	}
	// A single line that maps the caller may be written by the caller, at the price of setgroups(2). More needs the
	// privileged helpers, which know the subordinate ids.
	if len(m.UIDMap) <= 1 && len(m.GIDMap) <= 1 {
		m.Setgroups = false
		return m, nil
	}
	var err error
	if m.NewUIDMap, err = exec.LookPath("newuidmap"); err != nil {
		return nil, fmt.Errorf("map user ids without root (install the package uidmap): %w", err)
	}
	if m.NewGIDMap, err = exec.LookPath("newgidmap"); err != nil {
		return nil, fmt.Errorf("map group ids without root (install the package uidmap): %w", err)
	}
	return m, nil
}

// joinNamespaces is the message for a process that joins init. Every namespace that differs from ours is joined, not
// only those of the spec: a restored init has a time namespace that no spec names.
func joinNamespaces(pid int, process *specs.Process, rootless bool) (*bootstrap.Message, error) {
	m := &bootstrap.Message{Rootless: rootless, Setgroups: true}
	if process.OOMScoreAdj != nil {
		m.OOMScoreAdj = strconv.Itoa(*process.OOMScoreAdj)
	}
	for _, name := range []string{"ipc", "uts", "net", "pid", "mnt", "cgroup", "time", "user"} {
		path := fmt.Sprintf("/proc/%d/ns/%s", pid, name)
		theirs, err := os.Readlink(path)
		if errors.Is(err, os.ErrNotExist) {
			if _, err := os.Stat("/proc/self/ns/" + name); err != nil {
				continue // this kernel has no such namespace
			}
			return nil, fmt.Errorf("container's init %d is gone", pid)
		}
		if err != nil {
			return nil, fmt.Errorf("look at namespaces of init: %w", err)
		}
		ours, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			return nil, fmt.Errorf("look at own namespaces: %w", err)
		}
		if theirs != ours {
			m.Namespaces = append(m.Namespaces, bootstrap.Namespace{Type: name, Path: path})
		}
	}
	return m, nil
}

// hostID is what id 0 of the container is on the host.
func hostID(maps []specs.LinuxIDMapping) int {
	for _, m := range maps {
		if m.ContainerID == 0 && m.Size > 0 {
			return int(m.HostID)
		}
	}
	return 0
}
