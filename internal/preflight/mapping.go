package preflight

import (
	"strings"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/process"
)

// mapping is one that is not plain private memory.
type mapping struct {
	area   string // START-END, its name in /proc/PID/map_files
	shared bool
	device string // major:minor of what it maps
	inode  uint64
	name   string
}

func readMappings(pid int) ([]mapping, error) {
	var all []mapping
	err := process.Mappings(pid, func(m *process.Mapping) error {
		if m.Inode != 0 || m.Shared() || strings.HasPrefix(m.Name, "anon_inode:") {
			all = append(all, mapping{
				area: strings.Clone(m.Area), shared: m.Shared(), device: strings.Clone(m.Device), inode: m.Inode, name: strings.Clone(m.Name),
			})
		}
		return nil
	})
	return all, err
}

// Kinds of memory that CRIU copies itself, while the container stands still.
const (
	sharedAnonymous = "shared anonymous"
	memfd           = "memfd"
	systemV         = "System V shared"
	hugePages       = "huge page"
	lockedMemory    = "locked"
	tmpfsFiles      = "tmpfs"
)

// copied is which of these it is, "" for none. The names are the kernel's own.
func (m *mapping) copied() string {
	switch {
	case strings.HasPrefix(m.name, "/anon_hugepage"):
		return hugePages
	case strings.HasPrefix(m.name, "/memfd:"):
		return memfd
	case strings.HasPrefix(m.name, "/SYSV"):
		return systemV
	case m.shared && strings.HasPrefix(m.name, "/dev/zero"):
		return sharedAnonymous
	}
	return ""
}

// stat asks about the mapped file itself, whatever its name is by now.
func (p *proc) stat(m *mapping) (syscall.Stat_t, error) {
	var st syscall.Stat_t
	err := syscall.Stat(p.path("map_files/"+m.area), &st)
	return st, err
}

// judgeMappings finds mappings that CRIU cannot save.
func (p *proc) judgeMappings() Findings {
	var f Findings
	seen := make(map[string]bool)
	for i := range p.mappings {
		m := &p.mappings[i]
		if seen[m.name] {
			continue
		}
		switch {
		case strings.HasPrefix(m.name, "anon_inode:[io_uring]"):
			f = append(f, p.ioUring())
		case strings.HasPrefix(m.name, "/dev/") && m.copied() == "" && !strings.HasPrefix(m.name, "/dev/zero"):
			if st, err := p.stat(m); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFCHR {
				continue // a file in /dev/shm
			}
			f = append(f, p.finding(Blocker, Device, "close the device first", "maps memory of the device %s, which cannot be saved", m.name))
		case strings.HasPrefix(m.name, "anon_inode:"):
			f = append(f, p.finding(Blocker, OpenFile, "close it first", "maps %s, which cannot be saved", m.name))
		}
		seen[m.name] = true
	}
	return f
}

func (p *proc) ioUring() Finding {
	return p.finding(Blocker, IOUring, "run the program without io_uring (Node.js: UV_USE_IO_URING=0; MariaDB: --innodb-use-native-aio=0), or forbid it by seccomp",
		"uses io_uring, which cannot be saved")
}
