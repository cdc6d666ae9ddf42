package feed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/sys/hole"
	"github.com/livemigrate/migrate/internal/sys/socket"
)

// SocketName is the socket that CRIU looks for in its work directory, or in the image directory when it has no other.
const SocketName = "lazy-pages.socket"

// ErrClosed: Close was called before everything was fed.
var ErrClosed = errors.New("feeding was ended")

// Options of Start.
type Options struct {
	// Dir is CRIU's work directory: the socket is made there. Nobody else may be able to connect to it.
	Dir string
	// Store is where the pages are. The files stay the caller's, who may close them once Start has returned. They may grow until Load; then every page that the layout names must be there.
	Store []Part
	// Punch frees the store's pages as they are fed. The files must be open for writing, and nobody else's need.
	Punch bool
	// Disk: the store is files on a disk. They are read ahead of use and compared with their digests, and when they cannot be
	// read the feeding ends (ErrStore).
	Disk bool
	// StateDir is the container's, "" for none. In it is told that memory is missing (Await), and by whom it is given (Check).
	StateDir string
	// Late: pages may come after Load, see Owe. The store is then one file in memory.
	Late bool
	// Program and Args start a process that calls Serve: /proc/self/exe and "feed" if empty.
	Program string
	Args    []string
	Log     *slog.Logger // nil discards
}

// Supervisor keeps a feeder at work, whatever happens to it.
type Supervisor struct {
	options  Options
	log      *slog.Logger
	store    []Part // our own descriptors
	digests  *os.File
	lock     *os.File // says that memory is missing: feeders and holders have it too
	guard    *os.File // says that this process is at work
	former   *os.File // the holder that Adopt found, which is not our child
	formerID int
	late     *os.File // the list of arrivals
	arrivals *arrivals
	wanted   *os.File // a pipe: what feeders ask for
	wants    *os.File // its other end
	complete chan struct{}
	whole    sync.Once
	journal  *journal
	listener *net.UnixListener

	mu      sync.Mutex
	layout  *os.File
	conn    *os.File
	control *net.UnixConn // of the feeder that runs
	cmd     *exec.Cmd
	closed  bool
	said    string // the feeder's last line

	restarts atomic.Int32
	done     chan struct{}
	err      error // after done
}

// Start makes the socket and starts the first feeder; it waits for Load and for CRIU. ctx is not the feeder's life: the
// processes' memory does not end with whoever asked for it. The caller calls Close.
func Start(ctx context.Context, o *Options) (_ *Supervisor, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := newSupervisor(o)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start feeder: %w", err), s.release())
		}
	}()
	if err := s.keepFiles(o); err != nil {
		return nil, err
	}
	file, err := hole.Memory("feed-journal")
	if err != nil {
		return nil, err
	}
	if s.journal, err = openJournal(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if s.listener, err = listen(o.Dir); err != nil {
		return nil, err
	}
	if err := s.spawn(); err != nil {
		return nil, err
	}
	go s.accept()
	go s.watch()
	return s, nil
}

func newSupervisor(o *Options) *Supervisor {
	s := &Supervisor{options: *o, log: o.Log, done: make(chan struct{}), complete: make(chan struct{})}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.options.Program == "" {
		s.options.Program, s.options.Args = "/proc/self/exe", []string{"feed"}
	}
	return s
}

// listen makes the socket. Its path may be longer than an address has room for.
func listen(dir string) (*net.UnixListener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := os.Remove(filepath.Join(dir, SocketName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	path := "/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/" + SocketName
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the path means something else later
	if err := descriptor.TellSenders(l); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Load hands over the layout, before CRIU's restore begins. The file stays the caller's. ErrLayout when it is damaged.
func (s *Supervisor) Load(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("load layout: %w", err)
	}
	layout, err := ReadLayout(f, info.Size())
	if err != nil {
		return fmt.Errorf("load layout: %w", err)
	}
	if s.arrivals != nil {
		s.arrivals.need(layout)
		s.Arrived(0, 0) // it may be that nothing is
	}
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return fmt.Errorf("load layout: %w", os.NewSyscallError("dup", err))
	}
	syscall.CloseOnExec(fd)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layout != nil || s.closed {
		return errors.Join(errors.New("load layout: there is one"), syscall.Close(fd))
	}
	s.layout = os.NewFile(uintptr(fd), LayoutName)
	s.tell(s.layout, sentLayout)
	s.tell(s.conn, sentConn)
	return nil
}

// accept takes CRIU's connection; there is one.
func (s *Supervisor) accept() {
	conn, err := s.listener.AcceptUnix()
	_ = s.listener.Close()
	_ = os.Remove(filepath.Join(s.options.Dir, SocketName))
	if err != nil {
		return
	}
	file, err := conn.File()
	_ = conn.Close()
	if err != nil {
		s.log.Error("cannot take CRIU's connection", "error", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		file.Close()
		return
	}
	s.conn = file
	if s.layout != nil {
		s.tell(s.conn, sentConn)
	}
}

// tell sends the feeder a descriptor; a feeder that is dead learns it from its successor's start. Under mu.
func (s *Supervisor) tell(file *os.File, what string) {
	if file == nil {
		return
	}
	if err := descriptor.Send(s.control, file, what); err != nil {
		s.log.Debug("a feeder does not listen", "error", err)
	}
}

// spawn starts a feeder and tells it what is known so far.
func (s *Supervisor) spawn() error {
	orders, err := s.orderFile()
	if err != nil {
		return err
	}
	defer orders.Close()
	control, theirs, err := socket.Pair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	says, stderr, err := os.Pipe()
	if err != nil {
		return errors.Join(err, control.Close())
	}
	defer stderr.Close()

	cmd := exec.Command(s.options.Program, s.options.Args...) //nolint:noctx // see Start
	cmd.Args[0] = os.Args[0]
	cmd.Stderr = stderr // a file, not a copying goroutine: holders have it open for long
	cmd.ExtraFiles = append([]*os.File{theirs, orders, s.journal.file}, s.inherited()...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, control.Close(), says.Close())
	}
	go s.listen(says)

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.control != nil {
		_ = s.control.Close()
	}
	s.control, s.cmd = control, cmd
	if s.closed {
		_ = cmd.Process.Kill()
	}
	s.tell(s.layout, sentLayout)
	if s.layout != nil {
		s.tell(s.conn, sentConn)
	}
	return nil
}

// listen logs what a feeder says, until its holder is gone too.
func (s *Supervisor) listen(says *os.File) {
	defer says.Close()
	for lines := bufio.NewScanner(says); lines.Scan(); {
		s.mu.Lock()
		s.said = lines.Text()
		s.mu.Unlock()
		s.log.Info("feeder: " + lines.Text())
	}
}

// lastWords is why a feeder gave up. Where it had no journal yet there is what it said, which may still be on its way.
func (s *Supervisor) lastWords() string {
	if why := s.journal.head.reason(); why != "" {
		return why
	}
	for begun := time.Now(); time.Since(begun) < youth; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		said := s.said
		s.mu.Unlock()
		if said != "" {
			return said
		}
	}
	return "the feeder has given up without a word"
}

// restartWait is between feeders that die young, so that a machine which cannot run one is not busy with trying.
const (
	youth       = time.Second
	restartWait = 100 * time.Millisecond
)

// watch replaces the feeder until one ends by itself.
func (s *Supervisor) watch() {
	defer close(s.done)
	for {
		begun := time.Now()
		err := s.cmd.Wait() // all of it is gone then, so no call of it is under way in the kernel
		switch {
		case err == nil:
			s.endHolders(true)
			return
		case s.isClosed():
			s.err = ErrClosed
			return
		case s.cmd.ProcessState.ExitCode() == ExitHopeless:
			s.err = fmt.Errorf("feed memory: %s", s.lastWords())
			return
		}
		s.restarts.Add(1)
		s.log.Warn("the feeder died; another one takes over", "pid", s.cmd.Process.Pid, "why", err)
		s.endHolders(false)
		if time.Since(begun) < youth && s.restarts.Load() > 1 {
			time.Sleep(restartWait)
		}
		for err := s.spawn(); err != nil; err = s.spawn() {
			s.log.Warn("a feeder cannot be started", "error", err)
			if s.isClosed() {
				s.err = ErrClosed
				return
			}
			time.Sleep(youth)
		}
	}
}

func (s *Supervisor) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// endHolders ends and reaps the holders that hold nothing any more: all, or all but the one that a successor takes over from.
func (s *Supervisor) endHolders(all bool) {
	head := s.journal.head
	valid := int(atomic.LoadUint32(&head.generation))
	for i := range head.holders {
		pid := int(atomic.LoadUint32(&head.holders[i]))
		if pid == 0 || !all && valid != 0 && i == valid&1 {
			continue
		}
		if s.former != nil && pid == s.formerID {
			s.endFormer()
			atomic.StoreUint32(&head.holders[i], 0)
			continue
		}
		// It is our child and not reaped, so the number is still its own.
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			s.log.Warn("cannot end a holder", "pid", pid, "error", err)
		}
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
			s.log.Warn("cannot reap a holder", "pid", pid, "error", err)
		}
		atomic.StoreUint32(&head.holders[i], 0)
	}
}

// Done is closed when everything is fed, or nothing more will be: Err tells.
func (s *Supervisor) Done() <-chan struct{} { return s.done }

// Err is nil when everything was fed. Not before Done.
func (s *Supervisor) Err() error { return s.err }

// Pid is that of the feeder at this moment.
func (s *Supervisor) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Pid
}
