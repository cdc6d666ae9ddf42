package feed

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/sys/futex"
)

// lateSource is a store that is not complete yet.
type lateSource struct {
	*fileSource
	arrivals *arrivals
	wanted   int // the pipe to the supervisor

	mu    sync.Mutex
	news  chan struct{} // closed when something came
	ended atomic.Bool
}

func newLateSource(files *fileSource, a *arrivals, wanted int) *lateSource {
	s := &lateSource{fileSource: files, arrivals: a, wanted: wanted, news: make(chan struct{})}
	go s.watch()
	return s
}

// watch has one thread wait for all goroutines that do.
func (s *lateSource) watch() {
	came := &s.arrivals.head.came
	for seen := atomic.LoadUint32(came); !s.ended.Load(); {
		if err := futex.Wait(came, seen, tick); err != nil {
			time.Sleep(time.Millisecond)
		}
		now := atomic.LoadUint32(came)
		if now == seen {
			continue
		}
		seen = now
		s.mu.Lock()
		close(s.news)
		s.news = make(chan struct{})
		s.mu.Unlock()
	}
}

func (s *lateSource) listen() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.news
}

// Has counts as far as pages have come.
func (s *lateSource) Has(slot, pages uint64) uint64 { return s.arrivals.has(slot, pages) }

// errNotYet: who is in no hurry looks again whether the page is needed still.
var errNotYet = errors.New("the page has not come yet")

// Request waits for a page. Without urgency it comes in its turn, and the wait is a short one.
func (s *lateSource) Request(ctx context.Context, slot uint64, urgent bool) error {
	asked := false
	for {
		news := s.listen()
		if s.arrivals.has(slot, 1) > 0 {
			return nil
		}
		if urgent && !asked {
			asked = s.ask(slot) == nil
		}
		again := time.NewTimer(tick)
		select {
		case <-news:
			again.Stop()
		case <-again.C:
			if !urgent {
				return errNotYet
			}
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		}
	}
}

// ask tells the supervisor. What is written at once is not torn apart.
func (s *lateSource) ask(slot uint64) error {
	var b [wantedSize]byte
	binary.NativeEndian.PutUint64(b[:], slot)
	for {
		_, err := syscall.Write(s.wanted, b[:])
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("write", err)
		}
	}
}

// wantedSize is a slot in the pipe of those that are asked for.
const wantedSize = 8

func (s *lateSource) Close() error {
	s.ended.Store(true)
	return s.fileSource.Close()
}

// Owe says, before Load, that pages will come when the processes run already. The store's file is grown to have room. The
// store is one file that begins at slot 0.
func (s *Supervisor) Owe(o Owed) error {
	if s.late == nil || len(s.store) != 1 || s.store[0].Slot != 0 {
		return errors.New("owe pages: not with this store")
	}
	if o.Slot == 0 || o.Pages == 0 || o.Pages > maxSlots || o.Slot > maxSlots {
		return fmt.Errorf("%w: %d pages owed from slot %d on", ErrLayout, o.Pages, o.Slot)
	}
	info, err := s.store[0].File.Stat()
	if err != nil {
		return fmt.Errorf("owe pages: %w", err)
	}
	if info.Size() > int64(o.Slot*pageSize) {
		return fmt.Errorf("%w: pages are owed from slot %d on, and the store has some there", ErrLayout, o.Slot)
	}
	if err := s.store[0].File.Truncate(o.end()); err != nil {
		return fmt.Errorf("owe pages: %w", err)
	}
	s.arrivals, err = openArrivals(s.late, o.Slot, o.Pages)
	return err
}

// Arrived tells that pages are in the store. Wake has the feeder look; between them there may be many.
func (s *Supervisor) Arrived(slot, pages uint64) {
	if s.arrivals != nil && s.arrivals.set(slot, pages) == 0 {
		s.whole.Do(func() { close(s.complete) })
	}
}

// Wake has the feeder look for what Arrived.
func (s *Supervisor) Wake() {
	if s.arrivals == nil {
		return
	}
	if err := s.arrivals.wake(); err != nil {
		s.log.Warn("the feeder is not told of pages", "error", err) // it looks by itself, later
	}
}

// Missing is how many pages have not come yet.
func (s *Supervisor) Missing() uint64 {
	if s.arrivals == nil {
		return 0
	}
	return s.arrivals.missing()
}

// Held is which of the owed pages have come: bits from slot on, at most size bytes of them.
func (s *Supervisor) Held(slot uint64, size int) []byte {
	if s.arrivals == nil || slot < s.arrivals.head.slot {
		return nil
	}
	return s.arrivals.held(slot, size)
}

// Complete is closed when every page has come that is owed.
func (s *Supervisor) Complete() <-chan struct{} { return s.complete }

// Wanted returns the next page that a thread waits for. It returns io.EOF after Close. One goroutine at a time. A page may be
// asked for twice.
func (s *Supervisor) Wanted() (slot uint64, err error) {
	var b [wantedSize]byte
	if _, err := s.wanted.Read(b[:]); err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(b[:]), nil
}
