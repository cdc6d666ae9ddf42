package feed

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/sys/uffd"
)

// lazyFinished is LAZY_PAGES_RESTORE_FINISHED of criu/include/uffd.h.
const lazyFinished = 0x52535446

var errHandshake = errors.New("not the handshake of CRIU's lazy pages")

// handshake takes what CRIU has sent (criu/uffd.c, lazy_pages_setup_zombie, setup_uffd, lazy_pages_finish_restore; 3.15 to 4.3):
//
//	pid i32                  a zombie's, negated: nothing follows
//	pid i32 | byte + uffd    a task's, from the task itself; its memory is registered later
//	0x52535446 i32           every task's memory is registered, none runs yet
//
// Each part goes straight to the journal, so that a successor goes on in the middle.
func (f *feeder) handshake() error {
	if f.layout == nil || f.conn == nil {
		return nil
	}
	h := &f.journal.head.hand
	for {
		var n int
		var err error
		if h.state == handPid {
			h.forget()
			n, err = descriptor.ReceivePlaced(int(f.conn.Fd()), unsafe.Slice((*byte)(unsafe.Pointer(&h.pid)), 4), h.control[:])
		} else {
			n, err = descriptor.ReceivePlaced(int(f.conn.Fd()), unsafe.Slice((*byte)(unsafe.Pointer(&h.data)), 1), h.control[:])
		}
		switch {
		case errors.Is(err, syscall.EAGAIN):
			return nil
		case n == 0:
			atomic.StoreUint32(&f.journal.head.ended, 1)
			return f.hang()
		case err != nil:
			return fmt.Errorf("listen to CRIU: %w", err)
		case h.state == handPid && n != 4:
			return fmt.Errorf("%w: %d bytes of a pid", errHandshake, n)
		}
		s, err := f.advance(f.generation)
		if err != nil {
			return err
		}
		if s != nil {
			if err := f.welcome(s); err != nil {
				return err
			}
		}
		if h.finished() {
			return errors.Join(f.begin(), f.hang())
		}
	}
}

// advance understands the part of the handshake that the journal holds. The space is that of a task which is whole now; its
// descriptor is one of the generation's.
func (f *feeder) advance(generation int) (*space, error) {
	h := &f.journal.head.hand
	if h.state == handPid {
		if h.pid <= 0 || h.finished() {
			return nil, nil
		}
		if pid, ok := descriptor.Sender(h.control[:]); ok {
			h.host = int32(pid)
		}
		if h.host == 0 {
			return nil, fmt.Errorf("%w: process %d is none that is seen from here", errHandshake, h.pid)
		}
		clear(h.control[:])
		h.data = 0
		atomic.StoreUint32(&h.state, handUffd)
		return nil, nil
	}
	fd, ok := descriptor.Placed(h.control[:])
	if !ok {
		return nil, fmt.Errorf("%w: no descriptor for process %d", errHandshake, h.pid)
	}
	// The entry's number first: a successor that finds the task there knows that this hand is done with.
	number := f.journal.next
	e, err := f.journal.entry(number)
	if err != nil {
		return nil, err
	}
	atomic.StoreUint32(&h.entry, uint32(number)+1)
	e.begin(number, generation)
	e.pid, e.host, e.fds[generation&1] = h.pid, h.host, uint32(fd)
	atomic.StoreUint32(&e.state, entryTask)
	f.journal.next++
	f.clearHand()
	return &space{id: number, pid: int(e.pid), host: int(e.host), fd: uffd.FD(fd)}, nil
}

func (f *feeder) clearHand() {
	h := &f.journal.head.hand
	h.forget()
	atomic.StoreUint32(&h.state, handPid)
	atomic.StoreUint32(&h.entry, 0)
}

// forget makes room for the next part. The pid goes first: what is left of the others means nothing without it.
func (h *hand) forget() {
	h.pid = 0
	h.host = 0
	clear(h.control[:])
}

// finished: CRIU's last word has come.
func (h *hand) finished() bool { return h.state == handPid && h.pid == lazyFinished }

// welcome begins to feed a task.
func (f *feeder) welcome(s *space) error {
	list, ok := f.layout[s.pid]
	if !ok {
		return fmt.Errorf("%w: %d", ErrUnknownTask, s.pid)
	}
	delete(f.awaited, s.pid)
	s.known, s.left = list, list
	return f.join(s)
}

// hang closes CRIU's connection.
func (f *feeder) hang() error {
	if f.conn == nil {
		return nil
	}
	err := errors.Join(f.set.Remove(int(f.conn.Fd())), f.conn.Close())
	f.conn = nil
	return err
}
