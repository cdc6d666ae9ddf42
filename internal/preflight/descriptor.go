package preflight

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/sys/fs"
	"github.com/livemigrate/migrate/internal/sys/process"
)

// openFile is a descriptor of a process's.
type openFile struct {
	number int
	link   string // what /proc/PID/fd says
	mount  string // id of its mount, for files that have a path
	mode   uint32 // of files that have a path
	device uint64 // of device nodes
	ghost  ghost  // of files that have no name any more

	domain, kind, protocol int // of sockets
	pipe                   int // size, of pipes
	packets                bool
	semaphore              bool // of event counters: each read takes one
	queue                  bool // a POSIX message queue
}

func readDescriptors(pid int) ([]openFile, error) {
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	numbers, err := process.Descriptors(pid)
	if err != nil {
		return nil, err
	}
	remote, err := descriptor.OpenRemote(pid)
	if err != nil {
		return nil, err
	}
	defer func() { _ = remote.Close() }()
	var all []openFile
	for _, name := range numbers {
		number, err := strconv.Atoi(name)
		if err != nil {
			return nil, fmt.Errorf("read descriptors of process %d: %w", pid, err)
		}
		if d, ok := readDescriptor(dir+name, number, remote); ok {
			all = append(all, d)
		}
	}
	return all, nil
}

// readDescriptor reads what the descriptor is; not ok: it was closed meanwhile.
func readDescriptor(path string, number int, remote *descriptor.Remote) (openFile, bool) {
	link, err := os.Readlink(path)
	if err != nil {
		return openFile{}, false
	}
	d := openFile{number: number, link: link}
	if hasPath(link) && !d.readPath(path) {
		return openFile{}, false
	}
	switch {
	case strings.HasPrefix(d.link, "socket:"):
		d.domain, d.kind, d.protocol, _ = remote.Socket(number)
	case strings.HasPrefix(d.link, "pipe:"):
		d.pipe, d.packets, _ = remote.Pipe(number)
	case d.link == eventCounter:
		text, _ := os.ReadFile(strings.Replace(path, "/fd/", "/fdinfo/", 1))
		d.semaphore = strings.Contains(string(text), "eventfd-semaphore: 1\n") // since Linux 6.5
	}
	return d, true
}

func hasPath(link string) bool {
	return strings.HasPrefix(link, "/") && !strings.HasPrefix(link, "/memfd:")
}

// readPath asks about a file that has a path. The process runs, and may use the number for something else between two questions, as
// a shell does with `echo >file`: all are asked about one file, or about what came in its place. Not ok: it was closed meanwhile.
func (d *openFile) readPath(path string) bool {
	pin, err := fs.Pin(path)
	if err != nil {
		return false
	}
	defer pin.Close()
	if d.link, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", pin.Fd())); err != nil || !hasPath(d.link) {
		return err == nil
	}
	var st syscall.Stat_t
	if syscall.Fstat(int(pin.Fd()), &st) != nil {
		return true
	}
	d.mode, d.device = st.Mode&syscall.S_IFMT, st.Rdev
	d.ghost = ghostOf(d.link, &st)
	if id, err := fs.MountOf(int(pin.Fd())); err == nil {
		d.mount = strconv.Itoa(id)
	}
	d.queue = d.mode == syscall.S_IFREG && fs.IsMessageQueue(int(pin.Fd()))
	return true
}

// inode is the number in socket:[NUMBER].
func (d *openFile) inode() string {
	_, rest, _ := strings.Cut(d.link, "[")
	return strings.TrimSuffix(rest, "]")
}

const eventCounter = "anon_inode:[eventfd]"

// savedAnonymous are the files without a place that CRIU (4.2) saves, as /proc/PID/fd names them.
func savedAnonymous() []string {
	return []string{
		eventCounter, "anon_inode:[eventpoll]", "anon_inode:inotify", "anon_inode:[fanotify]",
		"anon_inode:[signalfd]", "anon_inode:[timerfd]", "anon_inode:[pidfd]", "anon_inode:bpf-map",
	}
}

// judgeDescriptors finds descriptors that CRIU cannot save. mounts are the ids of the container's.
func (p *proc) judgeDescriptors(mounts map[string]bool) Findings {
	var f Findings
	for i := range p.descriptors {
		d := &p.descriptors[i]
		switch {
		case d.semaphore:
			f = append(f, p.finding(Blocker, OpenFile, "let the program do without EFD_SEMAPHORE, or stop it",
				"has an event counter that is a semaphore (descriptor %d), which CRIU would restore as an ordinary one", d.number))
		case d.queue:
			f = append(f, p.finding(Blocker, OpenFile, "let it close the queue, and remove it", "has the POSIX message queue %s open (descriptor %d), which cannot be saved",
				d.link, d.number))
		case isProcessDirectory(d.link):
			f = append(f, p.finding(Blocker, OpenFile, "close it first", "has the directory %s itself open (descriptor %d), which CRIU saves under a wrong name", d.link, d.number))
		case strings.HasPrefix(d.link, "anon_inode:"):
			f = append(f, p.judgeAnonymous(d)...)
		case d.packets:
			f = append(f, p.finding(Blocker, PipeMode, "make the pipe without O_DIRECT", "has a pipe in packet mode (descriptor %d), which cannot be saved", d.number))
		case d.mode == syscall.S_IFCHR && !savedDevice(d.device), d.mode == syscall.S_IFBLK:
			f = append(f, p.finding(Blocker, Device, "close it first", "has the device %s open (descriptor %d), which cannot be saved", d.link, d.number))
		case d.mount != "" && !mounts[d.mount]:
			f = append(f, p.finding(Blocker, OutsideFile, "give it pipes, a terminal, or --log-file", "has %s open (descriptor %d), which lies outside of the container's mounts",
				d.link, d.number))
		}
	}
	return f
}

// isProcessDirectory: /proc/PID, and nothing in it. (criu/files-reg.c, check_path_remap, puts a slash where its name ends.)
func isProcessDirectory(link string) bool {
	number, ok := strings.CutPrefix(link, "/proc/")
	_, err := strconv.Atoi(number)
	return ok && err == nil
}

func (p *proc) judgeAnonymous(d *openFile) Findings {
	for _, saved := range savedAnonymous() {
		if d.link == saved {
			return nil
		}
	}
	switch d.link {
	case "anon_inode:[io_uring]":
		return Findings{p.ioUring()}
	case "anon_inode:[userfaultfd]":
		return Findings{p.finding(Blocker, OwnUserfaultfd, "stop what uses it (a virtual machine, a garbage collector)",
			"has a userfaultfd (descriptor %d), which cannot be saved", d.number)}
	}
	return Findings{p.finding(Blocker, OpenFile, "close it first", "has %s open (descriptor %d), which cannot be saved", d.link, d.number)}
}

// savedDevice tells whether CRIU saves an open device node: memory devices, terminals, and the network's tun.
func savedDevice(device uint64) bool {
	const memory, tty, console, misc, tun, autofs, firstPTY, lastPTY = 1, 4, 5, 10, 200, 235, 136, 143
	major, minor := device>>8&0xfff|device>>32&^uint64(0xfff), device&0xff|device>>12&^uint64(0xff)&0xffffffff
	switch {
	case major == memory, major == tty, major == console, major >= firstPTY && major <= lastPTY:
		return true
	case major == misc:
		return minor == tun || minor == autofs
	}
	return false
}
