package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/sys/poll"
	"github.com/livemigrate/migrate/internal/sys/uffd"
)

var (
	// ErrUnknownTask: CRIU restored a process that the layout does not know. Kill the tree: its memory is not here.
	ErrUnknownTask = errors.New("a restored process is not in the memory layout")
	// ErrLost: a process that is not fed yet waits for a descriptor that nobody holds any more. Kill the tree.
	ErrLost = errors.New("a userfaultfd is lost")
	// ErrNoTasks: CRIU hung up before all tasks were there, and those that were are dead.
	ErrNoTasks = errors.New("the restore ended before its memory was fed")
)

// feeder is one generation.
type feeder struct {
	log        *slog.Logger
	journal    *journal
	generation int
	open       func() (Source, error) // once the layout has come: the store grows until then
	source     Source
	layout     map[int]runs // by pid; nil until it has come
	awaited    map[int]bool // pids of the layout that CRIU has not handed over
	slots      *slots
	eyes       *eyes
	set        *poll.Set
	conn       *os.File // CRIU's; nil before and after
	lock       int      // a descriptor; 0 for none

	mu     sync.Mutex
	spaces []*space // not closed, in the order of their ids

	failed chan error // from whoever finds that it cannot go on

	faulted atomic.Int64 // when the last fault was served, in ns
	pushing sync.WaitGroup
	work    chan struct{} // a token for each pusher when there is something new to push
}

// connID is the id of CRIU's connection in the poll set; spaces have theirs.
const connID = -1

// Things that the supervisor sends, each with a descriptor.
const (
	sentLayout = "layout"
	sentConn   = "conn"
)

// sent is one of them.
type sent struct {
	what string
	file *os.File
}

// receive takes what the supervisor sends until it hangs up.
func receive(control *net.UnixConn, to chan<- sent) {
	defer close(to)
	for {
		file, what, err := descriptor.Receive(control)
		if err != nil {
			return
		}
		to <- sent{what, file}
	}
}

// tick is how often the loop looks for what no descriptor tells: processes that are gone.
const tick = 100 * time.Millisecond

// run serves until everything is fed. This goroutine alone reads messages and CRIU's connection.
func (f *feeder) run(ctx context.Context, inbox <-chan sent) error {
	runtime.LockOSThread() // a fault waits for this loop: no other goroutine delays it
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithCancel(ctx)
	defer f.pushing.Wait()
	defer cancel()
	for range pushers {
		f.pushing.Go(func() { f.push(ctx) })
	}
	var ids []int
	looked := time.Now()
	for {
		var err error
		if inbox, err = f.look(ctx, inbox); err != nil {
			return err
		}
		if ids, err = f.set.Wait(ids[:0], f.patience()); err != nil {
			return err
		}
		for _, id := range ids {
			if id == connID {
				err = f.handshake()
			} else {
				err = f.drain(ctx, id)
			}
			if err != nil {
				return err
			}
		}
		if time.Since(looked) >= tick {
			looked = time.Now()
			f.bury()
		}
		if over, err := f.over(); over {
			return err
		}
		select {
		case err := <-f.failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
	}
}

// fail ends this feeder, and every other: what it needs is not to be had.
func (f *feeder) fail(err error) {
	select {
	case f.failed <- err:
	default: // there is a reason already
	}
}

var errAlone = errors.New("the supervisor is gone, and has not said what to feed")

// look takes what the supervisor has sent. As long as there is nothing else it waits for that: without the layout a feeder
// does not even know what an earlier one has left to it.
func (f *feeder) look(ctx context.Context, inbox <-chan sent) (<-chan sent, error) {
	for f.layout == nil || f.expectant() && len(f.list()) == 0 {
		if inbox == nil {
			return nil, errAlone
		}
		select {
		case <-ctx.Done():
			return inbox, ctx.Err()
		case got, ok := <-inbox:
			var err error
			if inbox, err = f.deliver(got, ok, inbox); err != nil {
				return inbox, err
			}
		}
	}
	select {
	case got, ok := <-inbox:
		return f.deliver(got, ok, inbox)
	default:
		return inbox, nil
	}
}

// expectant: CRIU's connection is to come from the supervisor.
func (f *feeder) expectant() bool {
	head := f.journal.head
	return f.conn == nil && atomic.LoadUint32(&head.complete) == 0 && atomic.LoadUint32(&head.ended) == 0
}

// patience is short while something is about to come that the poll set does not see.
func (f *feeder) patience() time.Duration {
	if f.expectant() {
		return time.Millisecond
	}
	return tick / 10
}

// deliver takes what the supervisor sent.
func (f *feeder) deliver(got sent, ok bool, inbox <-chan sent) (<-chan sent, error) {
	head := f.journal.head
	switch {
	case !ok: // it is gone; without a connection nobody comes any more
		if f.layout != nil && f.expectant() {
			atomic.StoreUint32(&head.ended, 1)
		}
		return nil, nil
	case got.what == sentLayout:
		return inbox, f.load(got.file)
	case atomic.LoadUint32(&head.complete) != 0 || atomic.LoadUint32(&head.ended) != 0:
		return inbox, got.file.Close()
	default:
		f.conn = got.file
		return inbox, f.set.Add(int(got.file.Fd()), connID)
	}
}

// load reads the layout, and takes over what an earlier feeder has left.
func (f *feeder) load(file *os.File) error {
	defer file.Close()
	if f.layout != nil {
		return nil
	}
	// It stays open, for whoever comes when the supervisor is gone too.
	number, err := duplicateNumber(file)
	if err != nil {
		return err
	}
	atomic.StoreUint32(&f.journal.head.layouts[f.generation&1], uint32(number))
	info, err := file.Stat()
	if err != nil {
		return err
	}
	l, err := ReadLayout(file, info.Size())
	if err != nil {
		return err
	}
	if f.source, err = f.open(); err != nil {
		return err
	}
	if s, ok := f.source.(interface{ check(l *Layout) error }); ok {
		if err := s.check(l); err != nil {
			return err
		}
	}
	if f.slots, err = newSlots(l.Slots(), f.journal); err != nil {
		return err
	}
	f.layout = make(map[int]runs, len(l.Spaces))
	f.awaited = make(map[int]bool, len(l.Spaces))
	for _, s := range l.Spaces {
		f.layout[s.Pid] = makeRuns(s.Runs)
		f.awaited[s.Pid] = true
	}
	return f.inherit()
}

// join has a space fed from now on. What it needs is counted already.
func (f *feeder) join(s *space) error {
	if err := syscall.SetNonblock(int(s.fd), true); err != nil {
		return fmt.Errorf("take process %d: %w", s.pid, err)
	}
	f.mu.Lock()
	f.spaces = append(f.spaces, s)
	f.mu.Unlock()
	if err := f.set.Add(int(s.fd), s.id); err != nil {
		return fmt.Errorf("take process %d: %w", s.pid, err)
	}
	f.wakePushers()
	return nil
}

func (f *feeder) find(id int) *space {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, ok := slices.BinarySearchFunc(f.spaces, id, func(s *space, id int) int { return s.id - id })
	if !ok {
		return nil
	}
	return f.spaces[i]
}

// messagesAtOnce is how many a space may have served before the others get their turn.
const messagesAtOnce = 32

// drain reads a space's messages.
func (f *feeder) drain(ctx context.Context, id int) error {
	s := f.find(id)
	if s == nil {
		return nil
	}
	for range messagesAtOnce {
		e, err := f.read(s)
		if err != nil {
			return err
		}
		if e == nil {
			return nil
		}
		if e.Kind == uffd.Pagefault {
			if err := f.note(s, e.Address&^(pageSize-1)); err != nil {
				return err
			}
			f.fault(ctx, s, e.Address&^(pageSize-1))
		}
	}
	return nil
}

// read takes one message and applies it, if it is an event. nil: there is none.
func (f *feeder) read(s *space) (*uffd.Event, error) {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.closed {
		return nil, nil
	}
	entry, err := f.journal.entry(f.journal.next)
	if err != nil {
		return nil, err
	}
	entry.begin(s.id, f.generation)
	n, err := s.fd.Read(entry.message[:])
	if n != uffd.MessageSize {
		atomic.StoreUint32(&entry.state, entryFree)
		if err != nil && !errors.Is(err, syscall.EAGAIN) {
			// A child's descriptor had no room in our table: the kernel keeps the message.
			f.log.Warn("cannot read a message, trying again", "process", s.pid, "error", err)
			time.Sleep(memoryWait)
		}
		return nil, nil
	}
	e, err := uffd.Parse(entry.message[:])
	if err != nil {
		return nil, err
	}
	if e.Kind == uffd.Pagefault {
		atomic.StoreUint32(&entry.state, entryFree)
		return &e, nil
	}
	changed, lost := s.apply(&e)
	f.release(lost)
	if !changed {
		atomic.StoreUint32(&entry.state, entryFree)
		return &e, nil
	}
	atomic.StoreUint32(&entry.state, entryEvent)
	f.journal.next++
	if e.Kind == uffd.Fork {
		child := &space{id: f.journal.next - 1, pid: s.pid, fd: e.Child, known: s.known, left: s.left}
		atomic.AddUint64(&f.journal.head.total, child.left.pages())
		f.slots.need(child.left.all(nil))
		return &e, f.join(child)
	}
	return &e, nil
}
