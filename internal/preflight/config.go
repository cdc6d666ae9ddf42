package preflight

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/sys/fs"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/runtime"
)

// Container looks at what a container is configured as.
func Container(c *runtime.Container, o *checkpoint.Options) Findings {
	plan := c.Plan()
	f := judgeConfig(plan)
	// CRIU puts the mounts together below /tmp of the new root, or fails ("Can't create temporary directory").
	if root := plan.Spec.Root; root != nil && root.Readonly && !fs.IsDirectory(filepath.Join(plan.Rootfs, "tmp")) {
		f.add(Blocker, ReadOnlyRoot, "make that directory in "+plan.Rootfs, "its root is read-only and has no /tmp, which CRIU needs")
	}
	if err := checkpoint.Check(c, o); err != nil {
		f.add(Blocker, Unrestorable, "", "%v", err)
	}
	// A CRIU that is not found is the host's finding, and processes that cannot be listed are Scan's.
	if path, err := criu.Locate(o.CRIU); err == nil && !criu.Borrows(path) {
		pids, _ := c.Processes()
		f = append(f, judgeLimits(path, pids)...)
	}
	return f
}

// judgeLimits finds the processes whose limits a CRIU that cannot be helped may not read.
func judgeLimits(path string, pids []int) Findings {
	var f Findings
	for _, pid := range pids {
		if _, err := process.FileLimit(pid); !errors.Is(err, syscall.EPERM) {
			continue
		}
		p := &proc{pid: pid}
		if err := p.readStatus(); err != nil {
			continue // it has just ended
		}
		f = append(f, p.finding(Blocker, ForeignLimits, "give CAP_SYS_RESOURCE, a CRIU that is linked dynamically, or the container a user namespace",
			"belongs to another user, and %s may not read its limits", path))
	}
	return f
}

func judgeConfig(plan *runtime.Plan) Findings {
	var f Findings
	if filter := plan.Spec.Linux.Seccomp; filter != nil && filter.ListenerPath != "" && notifies(filter) {
		f.add(Blocker, SeccompNotify, "take SCMP_ACT_NOTIFY out of linux.seccomp",
			"its seccomp filter has the agent at %s answer system calls, and a restored one would have none", filter.ListenerPath)
	}
	return f
}

func notifies(filter *specs.LinuxSeccomp) bool {
	for _, call := range filter.Syscalls {
		if call.Action == specs.ActNotify {
			return true
		}
	}
	return filter.DefaultAction == specs.ActNotify
}

// SubjectOf is a container for Scan, with nothing said of what does not travel.
func SubjectOf(c *runtime.Container) (*Subject, error) {
	pids, err := c.Processes()
	if err != nil {
		return nil, err
	}
	plan := c.Plan()
	s := &Subject{
		Pids: pids, Init: c.InitPid(), Binds: make(map[string]string), Cgroups: c.State().CgroupPaths,
		Now: c.Processes,
	}
	if s.Host, err = SharesNetwork(c); err != nil {
		return nil, err
	}
	s.Path = !s.Host && plan.NamespacePath(specs.NetworkNamespace) != ""
	for _, m := range plan.Spec.Mounts {
		if m.Type == "tmpfs" {
			s.Tmpfs = append(s.Tmpfs, m.Destination)
		}
	}
	return s, nil
}

// SharesNetwork tells whether a container is in its host's network namespace, by a path or without one.
func SharesNetwork(c *runtime.Container) (bool, error) {
	plan := c.Plan()
	if plan.Network != nil || plan.Private(specs.NetworkNamespace) {
		return false, nil
	}
	theirs, err := netns.InodeOfProcess(c.InitPid())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // it has just ended
	}
	if err != nil {
		return false, err
	}
	ours, err := netns.InodeOfProcess(os.Getpid())
	return ours == theirs, err
}

// judgeLabels compares the container's security labels with what this host, the peer, has of such modules. Of AppArmor it
// must know the profiles.
func judgeLabels(labels []string, appArmor bool, profiles string, selinux bool) Findings {
	var f Findings
	for _, label := range labels {
		profile, _, _ := strings.Cut(label, " (")
		switch {
		case strings.Count(label, ":") >= 3: // user:role:type:level
			if !selinux {
				f.add(Blocker, SecurityLabel, "choose a peer with SELinux, or run the container without", "the container runs in the SELinux context %s, and this host has no SELinux", label)
			}
		case !appArmor:
			f.add(Blocker, SecurityLabel, "choose a peer with AppArmor, or run the container unconfined", "the container runs in the AppArmor profile %s, and this host has no AppArmor", profile)
		case !strings.Contains("\n"+profiles, "\n"+profile+" ("):
			f.add(Blocker, SecurityLabel, "load it here with apparmor_parser", "the AppArmor profile %s of the container is not loaded on this host", profile)
		}
	}
	return f
}

func labelsOfHost() (appArmor bool, profiles string, selinux bool) {
	text, err := os.ReadFile("/sys/kernel/security/apparmor/profiles")
	return err == nil, string(text), fs.IsDirectory("/sys/fs/selinux/policy_capabilities")
}
