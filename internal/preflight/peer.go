package preflight

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/internal/netspace"
)

// Arrival is a container that is to come to this host.
type Arrival struct {
	Spec      *specs.Spec
	Needs     *Needs
	Network   *link.Config      // of its link; nil without one
	Namespace *netspace.Record  // its network namespace, where this host makes it
	Hooked    bool              // this host has a hook for networks
	LogFile   string            // that its monitor is to write; "" without one
	Binds     []Bind            // those that do not, as the source has them
	Travels   map[int]bool      // mounts of the spec whose contents come along, by index
	Bundles   string            // where it is received
	Files     uint64            // bytes of files that come and are not here yet
	Cgroups   map[string]string // where its cgroups will be, by controller
}

// Arrive tells what this host, the peer, lacks for the container, but for what Host and CRIU tell.
func Arrive(a *Arrival) Findings {
	var f Findings
	if a.Network != nil {
		if err := link.CheckPeer(a.Network); err != nil {
			f.add(Blocker, Bridge, "", "%v", err)
		}
	}
	f = append(f, a.judgeNamespace()...)
	f = append(f, a.judgeBinds()...)
	f = append(f, a.judgeSpace()...)
	f = append(f, a.judgeLog()...)
	f = append(f, judgeFiles(a.Needs.Files)...)
	if a.Namespace == nil { // otherwise they are made
		f = append(f, judgeAddresses(a.Needs.Addresses)...)
	}
	appArmor, profiles, selinux := labelsOfHost()
	f = append(f, judgeLabels(a.Needs.Labels, appArmor, profiles, selinux)...)
	return append(f, a.judgeLimits()...)
}

// IsBind tells a bind mount from a file system.
func IsBind(m specs.Mount) bool {
	if m.Type == "bind" {
		return true
	}
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return false
}

func (a *Arrival) judgeSpace() Findings {
	var f Findings
	free, err := Free(a.Bundles)
	switch {
	case err != nil:
		f.add(Blocker, DiskSpace, "", "%v", err)
	case free < a.Files:
		f.add(Blocker, DiskSpace, "free some, or let serve use another directory (--bundles)", "no space: its files need %s below %s, where %s are free",
			size(a.Files), a.Bundles, size(free))
	}
	return f
}

// judgeLimits compares with the limits of the cgroups that its own will be below. Of memory what can be read again from
// files does not count.
func (a *Arrival) judgeLimits() Findings {
	var f Findings
	above(a.Cgroups, "memory", func(dir string) {
		limit, limited := first(dir, "memory.max", "memory.limit_in_bytes")
		usage, err := UsageOf(map[string]string{"": dir})
		if used := usage.Anonymous + usage.Shared; limited && err == nil && used+a.Needs.Memory > limit {
			f.add(Blocker, MemoryLimit, "raise it, or set linux.cgroupsPath to another", "the container has %s of memory, and %s, with a limit of %s, has %s in use",
				size(a.Needs.Memory), dir, size(limit), size(used))
		}
	})
	above(a.Cgroups, "pids", func(dir string) {
		limit, limited := first(dir, "pids.max")
		used, _ := first(dir, "pids.current")
		if limited && used+uint64(a.Needs.Threads) > limit {
			f.add(Blocker, ProcessLimit, "raise it, or set linux.cgroupsPath to another", "the container has %d threads, and %s, with a limit of %d, has %d already",
				a.Needs.Threads, dir, limit, used)
		}
	})
	return f
}

// above calls look with each cgroup that a controller's will be below.
func above(cgroups map[string]string, controller string, look func(dir string)) {
	dir, ok := cgroups[controller]
	if !ok {
		dir = cgroups[""] // cgroup v2
	}
	for dir = filepath.Dir(dir); strings.HasPrefix(dir, "/sys/fs/cgroup/"); dir = filepath.Dir(dir) {
		look(dir)
	}
}

// first reads the number in the first file of these that there is. "max" is none.
func first(dir string, names ...string) (uint64, bool) {
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		return n, err == nil
	}
	return 0, false
}

// Misfit is a finding about the pair of hosts that its caller has made out.
func Misfit(severity Severity, code Code, cure, format string, args ...any) Findings {
	return Findings{{Severity: severity, Code: string(code), Text: fmt.Sprintf(format, args...), Cure: cure}}
}

// Kernels tells of a peer whose kernel is older: programs may use what it does not have.
func Kernels(source, peer string) Findings {
	var a, b [2]int
	for text, to := range map[string]*[2]int{source: &a, peer: &b} {
		if _, err := fmt.Sscanf(text, "%d.%d", &to[0], &to[1]); err != nil {
			return nil
		}
	}
	if b[0] > a[0] || b[0] == a[0] && b[1] >= a[1] {
		return nil
	}
	return Misfit(Note, KernelOlder, "", "Linux %s is older than the source's %s: what a program has found to be there may be missing", peer, source)
}
