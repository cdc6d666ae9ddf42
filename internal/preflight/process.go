package preflight

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// proc is what /proc says of one process.
type proc struct {
	pid         int
	name        string
	parent      int
	state       byte // the letter of proc(5), of the thread that is worst off
	tracer      int  // of any thread
	threads     int
	locked      uint64 // bytes of memory that cannot be swapped
	pinned      uint64 // bytes that devices use
	hugetlb     uint64 // bytes of huge pages
	anonymous   uint64 // bytes of private anonymous memory
	label       string // AppArmor's or SELinux's
	namespaces  map[string]string
	mappings    []mapping
	descriptors []openFile
}

// errEnded: the process has ended, or is about to.
var errEnded = errors.New("process has ended")

// readProcess reads all that the checks ask about.
func readProcess(pid int) (*proc, error) {
	p := &proc{pid: pid}
	if err := p.readStatus(); err != nil {
		return nil, ended(err)
	}
	switch {
	case p.state == 'Z' && p.threads > 1:
		return p, nil // no more can be read of it
	case p.state == 'Z' || p.state == 'X':
		return nil, errEnded
	case p.threads > 1:
		p.readThreads()
	}
	if label, err := os.ReadFile(p.path("attr/current")); err == nil { // EINVAL without such a module
		p.label = strings.Trim(string(label), "\x00\n")
	}
	p.readNamespaces()
	var err error
	if p.mappings, err = readMappings(pid); err != nil {
		return nil, ended(err)
	}
	if p.descriptors, err = readDescriptors(pid); err != nil {
		return nil, ended(err)
	}
	return p, nil
}

func (p *proc) path(name string) string { return "/proc/" + strconv.Itoa(p.pid) + "/" + name }

// readStatus reads /proc/PID/status.
func (p *proc) readStatus() error {
	text, err := os.ReadFile(p.path("status"))
	if err != nil {
		return err
	}
	for line := range bytes.Lines(text) {
		key, value, _ := strings.Cut(string(line), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Name":
			p.name = value
		case "State":
			p.state = value[0]
		case "PPid":
			p.parent, err = strconv.Atoi(value)
		case "TracerPid":
			p.tracer, err = strconv.Atoi(value)
		case "Threads":
			p.threads, err = strconv.Atoi(value)
		case "VmLck":
			p.locked, err = kilobytes(value)
		case "VmPin":
			p.pinned, err = kilobytes(value)
		case "HugetlbPages":
			p.hugetlb, err = kilobytes(value)
		case "RssAnon":
			p.anonymous, err = kilobytes(value)
		}
		if err != nil {
			return fmt.Errorf("read status of process %d: %q", p.pid, line)
		}
	}
	return nil
}

func kilobytes(value string) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimSuffix(value, " kB"), 10, 64)
	return n << 10, err
}

// readThreads looks for what differs between threads: a debugger can hold a single one.
func (p *proc) readThreads() {
	tids, err := os.ReadDir(p.path("task"))
	if err != nil {
		return // it has just ended
	}
	for _, tid := range tids {
		thread := &proc{pid: p.pid}
		text, err := os.ReadFile(p.path("task/" + tid.Name() + "/status"))
		if err != nil {
			continue
		}
		for line := range bytes.Lines(text) {
			key, value, _ := strings.Cut(string(line), ":\t")
			switch key {
			case "State":
				thread.state = value[0]
			case "TracerPid":
				thread.tracer, _ = strconv.Atoi(strings.TrimSpace(value))
			}
		}
		if thread.tracer != 0 {
			p.tracer = thread.tracer
		}
		if thread.state == 'D' {
			p.state = 'D'
		}
	}
}

// nestable are the namespaces that CRIU saves once for the whole container, by their names in /proc/PID/ns. Mount and
// network namespaces may be a process's own.
func nestable() []string {
	return []string{"pid", "user", "uts", "ipc", "cgroup", "time"}
}

func (p *proc) readNamespaces() {
	p.namespaces = make(map[string]string)
	for _, kind := range append(nestable(), "time_for_children", "mnt", "net") {
		if inode, err := os.Readlink(p.path("ns/" + kind)); err == nil {
			p.namespaces[kind] = inode
		}
	}
}

// finding is one about this process.
func (p *proc) finding(severity Severity, code Code, cure, format string, args ...any) Finding {
	return Finding{Severity: severity, Code: string(code), Text: fmt.Sprintf(format, args...), Pid: p.pid, Process: p.name, Cure: cure}
}

// judge is what stands against a checkpoint of the process itself.
func (p *proc) judge(init *proc) Findings {
	var f Findings
	if p.tracer != 0 {
		name := "?"
		if comm, err := os.ReadFile("/proc/" + strconv.Itoa(p.tracer) + "/comm"); err == nil {
			name = strings.TrimSpace(string(comm))
		}
		f = append(f, p.finding(Blocker, Traced, "let the debugger go first", "is traced by process %d (%s)", p.tracer, name))
	}
	if p.state == 'D' {
		f = append(f, p.finding(Warning, Uninterruptible, "if it stays so, look for what hangs: a disk, or a network file system",
			"waits for a device and cannot be stopped meanwhile"))
	}
	if p.pinned > 0 {
		f = append(f, p.finding(Warning, PinnedMemory, "", "has %s of memory that a device writes to: all of the process's is copied again in the stop",
			size(p.pinned)))
	}
	for _, kind := range nestable() {
		if own, first := p.namespaces[kind], init.namespaces[kind]; own != "" && first != "" && own != first {
			f = append(f, p.finding(Blocker, NestedNamespace, "stop it first", "is in a %s namespace of its own: containers in containers cannot be saved", kind))
		}
	}
	// A process that has ended meanwhile has lost one of them or both.
	if own, next := p.namespaces["time"], p.namespaces["time_for_children"]; own != "" && next != "" && own != next {
		f = append(f, p.finding(Blocker, NestedNamespace, "stop it first", "makes its children in a time namespace of their own, which cannot be saved"))
	}
	if p.state == 'Z' {
		f = append(f, p.finding(Blocker, DeadLeader, "stop it first", "has threads whose first has ended, which cannot be saved"))
	}
	return f
}

// ended tells a process that is gone from one that cannot be read.
func ended(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, os.ErrProcessDone) {
		return errEnded
	}
	return err
}

// size is a number of bytes for people.
func size(bytes uint64) string {
	switch {
	case bytes >= 10<<30:
		return fmt.Sprintf("%d GB", bytes>>30)
	case bytes >= 1<<20:
		return fmt.Sprintf("%d MB", bytes>>20)
	default:
		return fmt.Sprintf("%d KB", bytes>>10)
	}
}
