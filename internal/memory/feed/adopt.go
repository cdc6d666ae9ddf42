package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/livemigrate/migrate/internal/memory/packed"
	"github.com/livemigrate/migrate/internal/sys/pidfd"
)

// ErrFed: no memory of the container is missing.
var ErrFed = errors.New("no memory of the container is missing")

// Adopt goes on with a feeding whose supervisor is gone, in place of that one: it takes the store, the layout and the journal
// from the holder, ends a feeder that is still at work, and starts another. stateDir is the container's. ErrFeeding when the
// supervisor lives, ErrFed when there is nothing to do, ErrLost when what is missing is not to be had any more: then kill the
// container. The caller calls Close.
func Adopt(ctx context.Context, stateDir string, log *slog.Logger) (_ *Supervisor, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("take over the feeding: %w", err)
		}
	}()
	lock, err := os.Open(filepath.Join(stateDir, lockName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrFed
	}
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	guard, err := takeGuard(stateDir)
	if err != nil {
		return nil, err
	}
	s := newSupervisor(&Options{StateDir: stateDir, Log: log})
	s.guard = guard
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	missing, err := isMissing(lock)
	if err == nil && !missing {
		err = checkMark(lock)
		if err == nil {
			err = ErrFed
		}
	}
	if err != nil {
		return nil, err
	}
	o, err := findOrphan(lock)
	if err != nil {
		return nil, err
	}
	defer o.close()
	if err = o.endFeeders(ctx); err == nil {
		err = s.take(ctx, o)
	}
	switch {
	case err != nil && checkMark(lock) == nil: // a feeder came to its end before it was ended
		return nil, ErrFed
	case err != nil:
		return nil, err
	}
	if err := s.spawn(); err != nil {
		return nil, err
	}
	go s.watch()
	return s, nil
}

// take gets from the holder what the supervisor before had.
func (s *Supervisor) take(ctx context.Context, o *orphan) error {
	file, err := duplicate(o.journal)
	if err != nil {
		return err
	}
	if s.journal, err = openJournal(file); err != nil {
		return errors.Join(err, file.Close())
	}
	head := s.journal.head
	if atomic.LoadUint32(&head.complete) == 0 {
		return fmt.Errorf("%w: the restore was not complete", ErrLost)
	}
	if err := o.settle(ctx, head); err != nil {
		return err
	}
	if s.former, err = duplicate(o.holder); err != nil {
		return err
	}
	s.formerID = o.pid
	order, err := readOrder(fmt.Sprintf("/proc/%d", o.pid))
	if err != nil {
		return err
	}
	s.options.Punch, s.options.Disk, s.options.Late = order.Punch, order.Disk, order.Late
	if err := s.takeFiles(o.holder, order); err != nil {
		return err
	}
	generation := int(atomic.LoadUint32(&head.generation))
	s.layout, err = pidfd.GetFD(o.holder, int(atomic.LoadUint32(&head.layouts[generation&1])))
	return err
}

// takeFiles gets the files behind the journal, in the order of inherited.
func (s *Supervisor) takeFiles(holder *os.File, o *order) (err error) {
	next := storeFD
	take := func(wanted bool) *os.File {
		if !wanted || err != nil {
			return nil
		}
		var file *os.File
		file, err = pidfd.GetFD(holder, next)
		next++
		return file
	}
	for i, slot := range o.Slots {
		part := Part{File: take(true), Slot: slot}
		if err != nil {
			return err
		}
		switch { // the sums, and the lengths of frames, are in their file
		case o.Sizes[i] > 0:
			part.Packed = &packed.Index{Chunk: o.Chunks[i], Size: o.Sizes[i]}
		case o.Chunks[i] > 0:
			part.Digests = &Digests{Chunk: o.Chunks[i]}
		}
		s.store = append(s.store, part)
	}
	s.digests, s.lock, s.late = take(o.Digests), take(o.Lock), take(o.Late)
	if err != nil || s.late == nil {
		return err
	}
	// The pipe's other end died with the supervisor: what it was asked for it is asked for again.
	if s.wanted, s.wants, err = os.Pipe(); err != nil {
		return err
	}
	if s.arrivals, err = openArrivals(s.late, 0, 0); err == nil && s.arrivals != nil {
		s.Arrived(0, 0) // it may be that nothing is missing
	}
	return err
}

// endFormer ends the holder that the first successor has taken over from, if that has not.
func (s *Supervisor) endFormer() {
	if err := pidfd.Signal(s.former, syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.log.Warn("cannot end a holder", "pid", s.formerID, "error", err)
	}
	s.former.Close()
	s.former = nil
}

// StoreFile is the file of the store's first part. The caller closes it.
func (s *Supervisor) StoreFile() (*os.File, error) { return duplicate(s.store[0].File) }

// Owed is what Owe said; no pages when it was not called.
func (s *Supervisor) Owed() Owed {
	if s.arrivals == nil {
		return Owed{}
	}
	return Owed{Slot: s.arrivals.head.slot, Pages: s.arrivals.head.pages}
}
