package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/memory/track"
	"github.com/livemigrate/migrate/internal/sys/process"
)

// Role is what a host is to do.
type Role int

// The roles. A host that is looked at for itself has both.
const (
	Source Role = 1 << iota
	Peer
)

// HostOptions say what a host is looked at for.
type HostOptions struct {
	Role          Role
	Needs         *Needs // of the container; nil: of none in particular
	UserNamespace bool   // the container has one
	Feed          bool   // memory is to go in pages
	Follows       bool   // the mode leaves memory behind
	Spool         string // the directory in which images lie; it need not be there yet
}

// Host looks at this host, but for its CRIU, which CRIU does.
func Host(ctx context.Context, o *HostOptions) (Findings, error) {
	m, err := readMachine(ctx, o)
	if err != nil {
		return nil, err
	}
	needs := o.Needs
	if needs == nil {
		needs = &Needs{}
	}
	return m.judge(o, needs), nil
}

// machine is what a host is and has.
type machine struct {
	root         bool
	capabilities process.Capabilities
	noTracing    bool       // kernel.yama.ptrace_scope is 3
	tracker      track.Kind // of the source
	impossible   error      // why the peer cannot feed

	files, perProcess, allFiles, usedFiles uint64 // limits of open files: this process's, fs.nr_open, fs.file-max
	pipe                                   uint64 // fs.pipe-max-size
	processes, allProcesses                uint64 // kernel.pid_max, kernel.threads-max
	available                              uint64 // bytes of memory
	spool                                  uint64 // bytes free
}

func readMachine(ctx context.Context, o *HostOptions) (*machine, error) {
	m := &machine{root: os.Geteuid() == 0, tracker: track.None}
	var err error
	if m.capabilities, err = process.Effective(); err != nil {
		return nil, err
	}
	scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	m.noTracing = err == nil && strings.HasPrefix(string(scope), "3")
	if o.Role&Source != 0 {
		if m.tracker, err = track.Probe(ctx); err != nil {
			return nil, err
		}
	}
	if o.Role&Peer != 0 {
		m.impossible = feed.Possible(o.UserNamespace)
	}
	if m.files, err = process.FileLimit(0); err != nil {
		return nil, err
	}
	for path, to := range map[string]*uint64{
		"fs/nr_open": &m.perProcess, "fs/file-max": &m.allFiles, "fs/file-nr": &m.usedFiles, "fs/pipe-max-size": &m.pipe,
		"kernel/pid_max": &m.processes, "kernel/threads-max": &m.allProcesses,
	} {
		if *to, err = sysctl(path); err != nil {
			return nil, err
		}
	}
	if m.available, err = Available(); err != nil {
		return nil, err
	}
	m.spool, err = Free(o.Spool)
	return m, err
}

// sysctl reads the first number of one.
func sysctl(name string) (uint64, error) {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return 0, fmt.Errorf("read sysctl: %w", err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\t")
	n, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read sysctl %s: %w", name, err)
	}
	return n, nil
}

// Available is how much memory the host can give, in bytes.
func Available() (uint64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read memory that is available: %w", err)
	}
	_, rest, _ := strings.Cut(string(text), "\nMemAvailable:")
	var available uint64 // KiB
	if _, err := fmt.Sscan(rest, &available); err != nil {
		return 0, fmt.Errorf("read memory that is available: %w", err)
	}
	return available << 10, nil
}

// Free is how much room a directory has, in bytes, or the nearest above it that is there.
func Free(dir string) (uint64, error) {
	for {
		var s syscall.Statfs_t
		err := syscall.Statfs(dir, &s)
		if err == nil {
			return s.Bavail * uint64(s.Bsize), nil
		}
		above := filepath.Dir(dir)
		if !errors.Is(err, os.ErrNotExist) || above == dir {
			return 0, fmt.Errorf("look for room in %s: %w", dir, err)
		}
		dir = above
	}
}

// judge is what the host lacks.
func (m *machine) judge(o *HostOptions, n *Needs) Findings {
	var f Findings
	switch {
	case !m.root:
		f.add(Blocker, Privileges, "run it as root", "a move needs root")
	case !m.capabilities.Has(process.SysAdmin) || !m.capabilities.Has(process.SysPtrace) || !m.capabilities.Has(process.NetAdmin):
		f.add(Blocker, Privileges, "run it with all capabilities", "CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_NET_ADMIN are needed, and one of them is missing")
	}
	if m.noTracing && o.Role&Source != 0 {
		f.add(Blocker, Tracing, "set the sysctl kernel.yama.ptrace_scope to 1, which takes a reboot", "nobody may trace processes here (kernel.yama.ptrace_scope is 3), and CRIU must")
	}
	f = append(f, m.judgeEngine(o)...)
	f = append(f, m.judgeFiles(o, n)...)
	f = append(f, m.judgePipes(o, n)...)
	return append(f, m.judgeRoom(o, n)...)
}

// judgeEngine tells what the memory engine can do here.
func (m *machine) judgeEngine(o *HostOptions) Findings {
	var f Findings
	if !o.Feed {
		f.add(Warning, Tracker, "leave out --feed=false and MIGRATE_FEED=0", "the memory engine is turned off: memory is copied while the container stands still")
		return f
	}
	if o.Role&Source != 0 {
		switch m.tracker {
		case track.None:
			f.add(Warning, Tracker, "use Linux 6.7 or newer, or one with CONFIG_MEM_SOFT_DIRTY",
				"this kernel cannot tell which pages a process writes: each round reads and compares all memory")
		default:
			f.add(Note, Tracker, "", "changed memory is found by %s", m.tracker)
		}
	}
	if o.Role&Peer != 0 && m.impossible != nil {
		severity := Warning
		if o.Follows {
			severity = Blocker
		}
		f.add(severity, Userfaultfd, "give migrate CAP_SYS_PTRACE and a kernel with userfaultfd, or set that sysctl",
			"%v: all of it comes while the container stands still", m.impossible)
	}
	return f
}

// aside is how many open files a process of ours needs besides those that grow with the container.
const aside = 256

// judgeFiles: the tracker, CRIU and the feeder hold one userfaultfd and a few others for each process.
func (m *machine) judgeFiles(o *HostOptions, n *Needs) Findings {
	var f Findings
	need := uint64(2*n.Processes + aside)
	if limit := min(m.files, m.perProcess); need > limit {
		severity := Warning // the source then copies memory in the stop
		if o.Role&Peer != 0 {
			severity = Blocker
		}
		f.add(severity, OpenFiles, fmt.Sprintf("raise the hard limit of open files to %d (ulimit -Hn, LimitNOFILE=)", need),
			"%d open files are allowed to a process, and %d processes take %d", limit, n.Processes, need)
	}
	if m.usedFiles+need > m.allFiles {
		f.add(Blocker, OpenFiles, "raise the sysctl fs.file-max", "%d files are open on this host, of %d that may be", m.usedFiles, m.allFiles)
	}
	return f
}

// ourPipe is how large CRIU makes its pipes when it takes memory into them (PIPE_MAX_SIZE, criu/include/page-pipe.h).
const ourPipe = 4 << 20

func (m *machine) judgePipes(o *HostOptions, n *Needs) Findings {
	var f Findings
	if m.capabilities.Has(process.SysResource) {
		return nil // the limits do not bind it
	}
	if o.Role&Peer != 0 && uint64(n.PipeSize) > m.pipe {
		f.add(Blocker, PipeSize, fmt.Sprintf("set the sysctl fs.pipe-max-size to %d", n.PipeSize),
			"a pipe of the container has %s, and here %s are allowed", size(uint64(n.PipeSize)), size(m.pipe))
	}
	if o.Role&Source != 0 && m.pipe < ourPipe {
		f.add(Warning, PipeSize, fmt.Sprintf("set the sysctl fs.pipe-max-size to %d", ourPipe),
			"pipes of %s are allowed: CRIU needs more of them for the same memory", size(m.pipe))
	}
	return f
}

// judgeRoom: a peer has the memory once, in its store or in images; a source has the images, from which memory that goes in
// pages is left out.
func (m *machine) judgeRoom(o *HostOptions, n *Needs) Findings {
	var f Findings
	images := n.Memory
	if o.Feed && m.impossible == nil {
		images = n.Copied
	}
	if images > m.spool {
		f.add(Blocker, ImageSpace, "make that file system larger, or free some of it",
			"images take %s of space below %s, where %s are free", size(images), o.Spool, size(m.spool))
	}
	if o.Role&Peer != 0 && n.Memory > m.available {
		f.add(Blocker, MemorySpace, "free some, or choose another peer", "no space: the container has %s of memory, and %s are available here", size(n.Memory), size(m.available))
	}
	if o.Role&Peer != 0 {
		if limit := min(m.processes, m.allProcesses); uint64(n.Threads) > limit {
			f.add(Blocker, ProcessLimit, "raise the sysctls kernel.pid_max and kernel.threads-max", "the container has %d threads, and here %d are allowed", n.Threads, limit)
		}
	}
	return f
}
