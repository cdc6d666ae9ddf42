// Package feed gives restored processes their memory while they run already. It is the daemon on CRIU's lazy-pages socket.
//
//  1. Start makes the socket, starts a feeder process and watches it. Load tells it the layout: which page is where in the store.
//  2. CRIU connects in the course of a restore with lazy_pages, and hands over a userfaultfd for each process.
//  3. A page that a process touches is put in its place from the store; the others follow in the background. What the process
//     does with its address space meanwhile (fork, munmap, mremap, madvise) comes as events, and the lists follow it.
//  4. A page of the store that no process needs any more is freed, an address space that misses nothing let go.
//  5. When all is fed the feeder ends, and with it the supervision.
//
// A userfaultfd that closes too early makes what is missing zero, which no process notices until it computes with it. So the
// feeder may die at any moment: a holder, a second process that shares its table of descriptors, keeps them all open, and a
// journal in shared memory has what the kernel told. Faults wait then, a new feeder takes over from both, and goes on.
// Only when both processes are killed together is memory lost. When whoever watches is killed besides the feeder, the container
// stands still at the first page that it lacks (Check), until another process takes everything over from the holder (Adopt).
//
// It needs Linux 5.7 and CAP_SYS_PTRACE, and a kernel that has userfaultfd for whoever CRIU restores.
package feed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/sys/poll"
)

// Descriptors that a feeder process inherits.
const (
	controlFD = 3 // the supervisor's socket
	orderFD   = 4
	journalFD = 5
	storeFD   = 6 // the first of the store's files; behind them the digests, if there are any, and the lock
)

// order is what a feeder is told.
type order struct {
	Slots []uint64 `json:"slots"` // of the store's files: that of the first page of each
	Punch bool     `json:"punch"`

	Disk    bool    `json:"disk,omitempty"`
	Chunks  []int64 `json:"chunks,omitempty"` // by file: bytes that a digest covers, 0 without
	Sizes   []int64 `json:"sizes,omitempty"`  // by file: bytes unpacked of one that is compressed, else 0
	Digests bool    `json:"digests,omitempty"`
	Lock    bool    `json:"lock,omitempty"`
	Late    bool    `json:"late,omitempty"` // behind the lock: the list of arrivals, and the pipe of pages that are wanted
}

// lateFD is where the list of arrivals is.
func (o *order) lateFD() int {
	fd := storeFD + len(o.Slots)
	for _, before := range []bool{o.Digests, o.Lock} {
		if before {
			fd++
		}
	}
	return fd
}

// ExitHopeless is the exit status of a feeder whose successor would not do better.
const ExitHopeless = 3

// memoryLimit is what the Go heap of a feeder is to stay below, in bytes.
const memoryLimit = 64 << 20

// Serve is the feeder process, which Start starts; it finds its descriptors where those put them. It returns when everything
// is fed. An error that Hopeless tells of is not cured by another feeder.
func Serve(ctx context.Context, log *slog.Logger) error {
	debug.SetMemoryLimit(memoryLimit)
	// The supervisor may be gone, and nobody listen to what we say. That is not to kill us.
	signal.Ignore(syscall.SIGPIPE)
	f := &feeder{log: log, work: make(chan struct{}, pushers), failed: make(chan error, 1), eyes: newEyes()}
	inbox, err := f.prepareProcess()
	if err != nil {
		return err
	}
	err = f.run(ctx, inbox)
	if Hopeless(err) {
		f.journal.head.despair(err)
	}
	if err != nil && !errors.Is(err, errAlone) && !errors.Is(err, ErrNoTasks) {
		return err // what the holder has is for a successor
	}
	if err == nil && f.lock != 0 {
		if _, err := syscall.Pwrite(f.lock, mark(f.whole()), 0); err != nil {
			return os.NewSyscallError("pwrite", err)
		}
	}
	pid := atomic.LoadUint32(f.journal.head.bank(f.generation))
	if killErr := syscall.Kill(int(pid), syscall.SIGKILL); killErr != nil {
		return errors.Join(err, fmt.Errorf("end the holder: %w", killErr))
	}
	if err != nil {
		return err
	}
	log.Debug("everything is fed", "pages", atomic.LoadUint64(&f.journal.head.fed),
		"faults", atomic.LoadUint64(&f.journal.head.faults), "zeros", atomic.LoadUint64(&f.journal.head.zeros))
	return nil
}

// whole tells whether every page had come.
func (f *feeder) whole() bool {
	late, ok := f.source.(*lateSource)
	return !ok || late.arrivals.missing() == 0
}

// Hopeless tells that a new feeder would fail as well.
func Hopeless(err error) bool {
	for _, sentinel := range []error{ErrUnknownTask, ErrLost, ErrNoTasks, ErrPresent, ErrWithheld, ErrLayout, ErrStore, errNoPage, errJournal, errHandshake} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// prepareProcess opens what was inherited, the holder first: it copies what memory there is.
func (f *feeder) prepareProcess() (<-chan sent, error) {
	for fd := controlFD; fd < storeFD; fd++ {
		if err := descriptor.Withhold(fd); err != nil {
			return nil, err
		}
	}
	var err error
	if f.journal, err = openJournal(os.NewFile(journalFD, "journal")); err != nil {
		return nil, err
	}
	f.generation = int(atomic.LoadUint32(&f.journal.head.generation)) + 1
	if err := f.hold(); err != nil {
		return nil, err
	}
	o, err := readOrder("/proc/self")
	if err != nil {
		return nil, err
	}
	files := make([]*os.File, len(o.Slots))
	for i := range files {
		name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", storeFD+i)) // for whoever reads of it
		if err != nil {
			return nil, err
		}
		files[i] = os.NewFile(uintptr(storeFD+i), name)
		if err := descriptor.Withhold(storeFD + i); err != nil {
			return nil, err
		}
	}
	next := storeFD + len(files)
	var digests *os.File
	if o.Digests {
		digests = os.NewFile(uintptr(next), "digests")
		next++
	}
	if o.Lock { // held by being open, here and in the holder
		f.lock = next
		if err := descriptor.Withhold(next); err != nil {
			return nil, err
		}
		next++
	}
	var late *os.File
	if o.Late {
		late = os.NewFile(uintptr(next), "arrivals")
		for fd := next; fd <= next+1; fd++ {
			if err := descriptor.Withhold(fd); err != nil {
				return nil, err
			}
		}
	}
	f.open = func() (Source, error) { return openSource(o, files, digests, late, next+1) }
	if f.set, err = poll.New(); err != nil {
		return nil, err
	}
	file := os.NewFile(controlFD, "control")
	conn, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	control, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("the control socket is none")
	}
	inbox := make(chan sent)
	go receive(control, inbox)
	return inbox, nil
}

// readOrder reads the order of this process, or of another one. It stays open there.
func readOrder(proc string) (*order, error) {
	text, err := os.ReadFile(fmt.Sprintf("%s/fd/%d", proc, orderFD))
	if err != nil {
		return nil, fmt.Errorf("read order: %w", err)
	}
	var o order
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, fmt.Errorf("read order: %w", err)
	}
	return &o, nil
}
