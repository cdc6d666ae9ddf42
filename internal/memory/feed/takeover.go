package feed

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/sys/pidfd"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/sys/uffd"
)

// hold makes the holder of this generation. Every descriptor from now on is held.
func (f *feeder) hold() error {
	bank := f.journal.head.bank(f.generation)
	if err := process.Hold(bank); err != nil {
		return fmt.Errorf("make holder: %w", err)
	}
	return nil
}

// inherit makes this generation the valid one. It takes the spaces that an earlier feeder has left to it, from that one's
// holder: that feeder must be gone, its last call into the kernel included.
func (f *feeder) inherit() error {
	head := f.journal.head
	former := int(atomic.LoadUint32(&head.generation))
	spaces, pages, err := f.replay(former)
	if err != nil {
		return err
	}
	if err := f.fetch(spaces, former); err != nil {
		return err
	}
	atomic.StoreUint32(&head.generation, uint32(f.generation))
	// The supervisor reaps it, so its number stays in the journal.
	if pid := atomic.LoadUint32(head.bank(former)); former != 0 && pid != 0 {
		if err := syscall.Kill(int(pid), syscall.SIGKILL); err != nil {
			f.log.Warn("cannot end the holder before this one", "pid", pid, "error", err)
		}
	}
	// Everybody's needs are counted before anybody is fed: a slot that several need must not be given up for the first of them.
	var left uint64
	for _, s := range spaces {
		s.left = makeRuns(f.slots.unspent(s.known.all(nil)))
		left += s.left.pages()
		f.slots.need(s.left.all(nil))
	}
	for pid := range f.awaited {
		pages += f.layout[pid].pages()
		left += f.layout[pid].pages()
		f.slots.need(f.layout[pid].all(nil))
	}
	atomic.StoreUint64(&head.fed, pages-left)
	atomic.StoreUint64(&head.total, pages)
	for _, s := range spaces {
		if err := f.join(s); err != nil {
			return err
		}
		// A fault that the former feeder has read and not served never comes again: whoever waits is to try again.
		if err := s.fd.Wake(lowestAddress, highestAddress-lowestAddress); err != nil {
			return fmt.Errorf("wake process %d: %w", s.pid, err)
		}
	}
	if former != 0 {
		f.log.Info("took over", "generation", f.generation, "processes", len(spaces), "events", f.journal.next, "pages", left)
	}
	if head.hand.finished() && atomic.LoadUint32(&head.complete) == 0 {
		return f.begin()
	}
	return nil
}

// What a process can have mapped: above mmap_min_addr, below the end of four levels of page tables, which is as far as a
// range may go where there are only these. With five levels a process gets more only if it asks for it.
const (
	lowestAddress  = 1 << 16
	highestAddress = 1<<47 - pageSize
)

// replay goes through what has happened and returns the spaces that are not closed, their known lists as they are now, and
// how many pages were missing in all spaces when they began.
func (f *feeder) replay(former int) (spaces []*space, pages uint64, err error) {
	all := map[uint32]*space{}
	begin := func(s *space) {
		all[uint32(s.id)] = s
		spaces = append(spaces, s)
		pages += s.known.pages()
	}
	for ; ; f.journal.next++ {
		e, err := f.journal.entry(f.journal.next)
		if err != nil {
			return nil, 0, err
		}
		state := atomic.LoadUint32(&e.state)
		if state == entryReading {
			// The former feeder was killed while it read: the message is there, or none was.
			if kind := uffd.Kind(e.message[0]); kind == 0 || kind == uffd.Pagefault {
				state = entryFree
			} else {
				state = entryEvent
			}
			atomic.StoreUint32(&e.state, state)
		}
		switch state {
		case entryFree:
			if err := f.resumeHand(former, begin); err != nil {
				return nil, 0, err
			}
			spaces, err = f.openOnes(spaces)
			return spaces, pages, err
		case entryTask:
			list, ok := f.layout[int(e.pid)]
			if !ok {
				return nil, 0, fmt.Errorf("%w: %d", ErrUnknownTask, e.pid)
			}
			delete(f.awaited, int(e.pid))
			begin(&space{id: f.journal.next, pid: int(e.pid), host: int(e.host), known: list})
		case entryWaited:
			s := all[e.space]
			event, err := uffd.Parse(e.message[:])
			if err != nil || s == nil {
				return nil, 0, errors.Join(fmt.Errorf("%w: entry %d", errJournal, f.journal.next), err)
			}
			s.wait(event.Address &^ (pageSize - 1))
		case entryEvent:
			s := all[e.space]
			event, err := uffd.Parse(e.message[:])
			if err != nil || s == nil {
				return nil, 0, errors.Join(fmt.Errorf("%w: entry %d", errJournal, f.journal.next), err)
			}
			s.apply(&event)
			if event.Kind == uffd.Fork {
				begin(&space{id: f.journal.next, pid: s.pid, known: s.known})
			}
		}
	}
}

// resumeHand completes the part of CRIU's handshake that the former feeder had received when it was killed.
func (f *feeder) resumeHand(former int, begin func(*space)) error {
	h := &f.journal.head.hand
	if n := atomic.LoadUint32(&h.entry); n != 0 {
		e, err := f.journal.entry(int(n) - 1)
		if err != nil {
			return err
		}
		if int(n)-1 < f.journal.next && e.state == entryTask {
			f.clearHand()
			return nil
		}
	}
	if _, ok := descriptor.Placed(h.control[:]); h.state == handUffd && !ok {
		return nil // it comes yet
	}
	s, err := f.advance(former)
	if err != nil || s == nil {
		return err
	}
	list, ok := f.layout[s.pid]
	if !ok {
		return fmt.Errorf("%w: %d", ErrUnknownTask, s.pid)
	}
	s.known = list
	delete(f.awaited, s.pid)
	begin(s)
	return nil
}

// openOnes leaves out the closed ones.
func (f *feeder) openOnes(spaces []*space) ([]*space, error) {
	var list []*space
	for _, s := range spaces {
		e, err := f.journal.entry(s.id)
		if err != nil {
			return nil, err
		}
		if atomic.LoadUint32(&e.closed) == 0 {
			list = append(list, s)
		}
	}
	return list, nil
}

// fetch takes the spaces' descriptors from the former holder and notes their numbers here beside those there: which of both
// count is decided by one word, the generation.
func (f *feeder) fetch(spaces []*space, former int) error {
	if len(spaces) == 0 {
		return nil
	}
	holder, err := pidfd.Open(int(atomic.LoadUint32(f.journal.head.bank(former))))
	if err != nil {
		return fmt.Errorf("%w: the holder is gone: %w", ErrLost, err)
	}
	defer holder.Close()
	for _, s := range spaces {
		e, err := f.journal.entry(s.id)
		if err != nil {
			return err
		}
		file, err := pidfd.GetFD(holder, e.fd(former))
		if err != nil {
			return fmt.Errorf("%w: process %d: %w", ErrLost, s.pid, err)
		}
		fd, err := keep(file)
		if err != nil {
			return err
		}
		s.fd = uffd.FD(fd)
		e.fds[f.generation&1] = uint32(fd)
	}
	return nil
}

// keep is the number of a file whose descriptor no collector may close.
func keep(file *os.File) (int, error) {
	fd, err := duplicateNumber(file)
	return fd, errors.Join(err, file.Close())
}

func duplicateNumber(file *os.File) (int, error) {
	fd, err := syscall.Dup(int(file.Fd()))
	if err != nil {
		return 0, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(fd)
	return fd, nil
}
