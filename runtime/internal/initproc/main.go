// Package initproc is the process that becomes a container's program: what it does between the C stage, which made or
// joined its namespaces, and execve(2).
//
//  1. read the configuration from the bootstrap socket
//  2. init: session keyring, loopback, root (package rootfs), hooks, terminal, names, sysctls, masks
//     exec: session keyring, terminal
//  3. what execve(2) hands on: scheduler, priorities, personality, memory policy, no-new-privileges
//  4. compile the seccomp filter and say that all is ready; the starter sets limits and writes the state down
//  5. labels, capabilities, user, working directory, seccomp
//  6. init: wait on the exec fifo, run the startContainer hooks
//  7. close every descriptor that is not the program's, and execute it
//
// An error at any step goes to the starter as its text and ends the process.
package initproc

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/runtime/internal/bootstrap"
	"github.com/livemigrate/migrate/runtime/internal/handshake"
	"github.com/livemigrate/migrate/runtime/internal/seccomp"
)

// lastFD is the end of a range for close_range(2).
const lastFD = 0xffffffff

// process is the one that this program is about to become.
type process struct {
	*handshake.Config
	conn    *handshake.Conn
	logFile *os.File
	log     *slog.Logger
	parent  int
	env     []string // of the program, HOME added
	filter  *seccomp.Filter
	pollers []int // descriptors that stay open until execve(2)

	keepGroups bool // setgroups(2) is not ours to call
}

// Main is `migrate init`. It never returns.
func Main() {
	// Credentials, labels, keyring and seccomp belong to a thread until execve(2): everything happens on this one.
	runtime.GOMAXPROCS(1)
	runtime.LockOSThread()
	// Init lives for milliseconds, or waits without allocating.
	debug.SetGCPercent(-1)

	p, err := receive()
	if err == nil {
		err = p.run()
	}
	// Without a channel there is nobody to tell but standard error.
	if p == nil || p.conn == nil || p.conn.Send(&handshake.Message{Type: handshake.Failed, Text: err.Error()}) != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1)
}

// receive reads the configuration and opens what it names.
func receive() (*process, error) {
	fd, err := strconv.Atoi(os.Getenv(bootstrap.EnvFD))
	if err != nil {
		return nil, errors.New("this verb is for the runtime itself: it starts a container's process by it")
	}
	p := &process{Config: &handshake.Config{}, parent: os.Getppid()}
	socket := os.NewFile(uintptr(fd), "bootstrap")
	defer socket.Close()
	if err := json.NewDecoder(socket).Decode(p.Config); err != nil {
		return nil, fmt.Errorf("read configuration of the process: %w", err)
	}
	os.Clearenv()
	highest := fd
	for _, fd := range []int{p.SyncFD, p.LogFD, p.FifoFD, p.ConsoleFD, p.PidfdFD} {
		if fd > 0 {
			unix.CloseOnExec(fd)
			highest = max(highest, fd)
		}
	}
	// What the starter inherited from its own caller and left open would else be held as long as init waits for start.
	if err := closeFrom(highest + 1); err != nil {
		return p, err
	}
	p.conn = handshake.NewConn(os.NewFile(uintptr(p.SyncFD), "handshake"))
	p.logFile = os.NewFile(uintptr(p.LogFD), "log")
	level := slog.LevelInfo
	if p.Debug {
		level = slog.LevelDebug
	}
	p.log = slog.New(slog.NewJSONHandler(p.logFile, &slog.HandlerOptions{Level: level}))
	return p, nil
}

// run ends in execve(2), or with the error.
func (p *process) run() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic in init: %v\n%s", r, debug.Stack())
		}
	}()
	p.log.Debug("child process in init()", "kind", p.Kind)
	if p.Kind == handshake.Exec {
		return p.exec()
	}
	return p.init()
}

// ready tells the starter that all is set up but what takes rights away, and waits for its word. The filter is compiled
// before, for the starter sets limits: libseccomp gets no memory under an RLIMIT_AS that is smaller than what Go has
// reserved, though the program may do with far less.
func (p *process) ready() (err error) {
	if p.filter, err = seccomp.Compile(p.Spec.Linux.Seccomp, p.NoSeccompFlags, p.log); err != nil {
		return fmt.Errorf("compile seccomp filter: %w", err)
	}
	if _, err := p.conn.Ask(&handshake.Message{Type: handshake.Ready}, handshake.Continue); err != nil {
		return fmt.Errorf("report ready: %w", err)
	}
	return p.keepOpenFiles()
}

// keepOpenFiles makes Go forget the soft RLIMIT_NOFILE of before it raised it for itself. It restores that one at
// execve(2) when it finds the limit as it left it, soft equal to hard, and cannot know that the starter wanted it so.
func (p *process) keepOpenFiles() error {
	if !slices.ContainsFunc(p.Process.Rlimits, func(r specs.POSIXRlimit) bool { return r.Type == "RLIMIT_NOFILE" }) {
		return nil
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	return os.NewSyscallError("setrlimit", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
}

// closeChannels ends the handshake: from here on errors have nowhere to go.
func (p *process) closeChannels() error {
	return errors.Join(p.conn.Close(), p.logFile.Close())
}

// become executes the program. Whatever it does on the way must be allowed by any filter that a program can live with:
// no more than close(2) and execve(2).
func (p *process) become(path string) error {
	first := 3 + p.PassedFiles
	for fd := first; fd < first+window; fd++ {
		if !slices.Contains(p.pollers, fd) {
			_ = unix.Close(fd)
		}
	}
	if err := unix.Exec(path, p.Process.Args, p.env); err != nil {
		return &os.PathError{Op: "exec", Path: path, Err: err}
	}
	return nil
}

// window is how many descriptors after the program's own may be ours: Go takes the lowest free numbers.
const window = 64

// sealDescriptors is done while no filter forbids it. What we inherited by accident stays out of the hooks and of the
// program, and become learns which descriptors are not to be closed.
func (p *process) sealDescriptors() error {
	// A pipe is waited on by Go's poller, which therefore exists from here on.
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start poller: %w", err)
	}
	if err := errors.Join(r.Close(), w.Close()); err != nil {
		return err
	}
	first := 3 + p.PassedFiles
	if err := unix.CloseRange(uint(first), lastFD, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark descriptors: %w", err)
	}
	if err := unix.CloseRange(uint(first+window), lastFD, 0); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	p.pollers = pollers(first)
	return nil
}

// closeFrom closes every descriptor from first on, not merely marks it: the path of the program may lead through
// /proc/self/fd to one of ours (CVE-2024-21626). What Go's poller waits on stays.
func closeFrom(first int) error {
	keep := pollers(first)
	for fd := first; fd < first+window; fd++ {
		if !slices.Contains(keep, fd) {
			_ = unix.Close(fd)
		}
	}
	if err := unix.CloseRange(uint(first+window), lastFD, 0); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	return nil
}

// pollers are the descriptors of Go's poller, an epoll and an eventfd. They are on an inode that no path leads to, and
// close-on-exec; without them another thread of Go panics before we execute.
func pollers(first int) []int {
	const anonymous = 0x09041934 // ANON_INODE_FS_MAGIC
	var list []int
	for fd := first; fd < first+window; fd++ {
		var st unix.Statfs_t
		if err := unix.Fstatfs(fd, &st); err == nil && st.Type == anonymous {
			list = append(list, fd)
		}
	}
	return list
}
