package feed

import (
	"errors"
	"slices"
	"sync/atomic"
)

// release gives up pages that are fed or needed no more.
func (f *feeder) release(list []Run) {
	if len(list) == 0 {
		return
	}
	var pages uint64
	for _, r := range list {
		pages += r.Pages
	}
	atomic.AddUint64(&f.journal.head.fed, pages)
	for _, r := range f.slots.done(list) {
		if err := f.source.Punch(r.Slot, r.Pages); err != nil {
			f.log.Warn("cannot free pages of the store", "error", err)
		}
	}
}

// finish lets a space go: it is fed, or gone. The kernel wakes whoever waits there.
func (f *feeder) finish(s *space) {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	f.release(s.fed(0, ^uint64(0)&^(pageSize-1)))
	if entry, err := f.journal.entry(s.id); err == nil { // it was there before
		atomic.StoreUint32(&entry.closed, 1)
	}
	if err := errors.Join(f.set.Remove(int(s.fd)), s.fd.Close()); err != nil {
		f.log.Warn("cannot let a process go", "process", s.pid, "error", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spaces = slices.DeleteFunc(f.spaces, func(other *space) bool { return other == s })
}

func (f *feeder) list() []*space {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.spaces)
}

// bury finishes the spaces that are fed and those whose process is gone, which nothing tells us of.
func (f *feeder) bury() {
	complete := atomic.LoadUint32(&f.journal.head.complete) != 0
	for _, s := range f.list() {
		if complete && s.complete() || !s.alive() {
			f.finish(s)
		}
	}
}

// over tells that nothing is left to do.
func (f *feeder) over() (bool, error) {
	head := f.journal.head
	complete := atomic.LoadUint32(&head.complete) != 0
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case len(f.spaces) > 0 || f.layout == nil:
		return false, nil
	case complete:
		return true, nil
	case atomic.LoadUint32(&head.ended) != 0:
		return true, ErrNoTasks
	}
	return false, nil
}
