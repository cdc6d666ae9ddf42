package feed

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// faultPages is how much of a run is served from the page on that a thread waits for. Until it is known that none of the others
// is in place already it is that page alone: a thread does not wait for one that is.
const faultPages = 16

// fault serves a page that a thread waits for; at once if it can be, else in a goroutine, because a thing that it waits for
// may be an event that only the caller reads.
func (f *feeder) fault(ctx context.Context, s *space, address uint64) {
	atomic.AddUint64(&f.journal.head.faults, 1)
	f.faulted.Store(time.Now().UnixNano())
	a := f.serve(s, address)
	f.faulted.Store(time.Now().UnixNano())
	if a.served {
		return
	}
	go func() {
		for !a.served && ctx.Err() == nil {
			f.wait(ctx, a, true)
			a = f.serve(s, address)
			f.faulted.Store(time.Now().UnixNano())
		}
	}()
}

// attempt is what became of one.
type attempt struct {
	served bool
	slot   uint64        // not 0: this page has not come yet
	wait   time.Duration // before the next one
}

// Waits before something is tried again.
const (
	eventWait  = 50 * time.Microsecond // an event is being read
	memoryWait = 10 * time.Millisecond // the kernel makes room
	errorWait  = time.Second           // a store that cannot be read
)

// wait is urgent where a thread waits too.
func (f *feeder) wait(ctx context.Context, a attempt, urgent bool) {
	if a.slot != 0 {
		err := f.source.Request(ctx, a.slot, urgent)
		if err == nil {
			return
		}
		if errors.Is(err, ErrStore) {
			f.fail(err)
		}
		a.wait = memoryWait
	}
	time.Sleep(a.wait)
}

func (f *feeder) serve(s *space, address uint64) attempt {
	s.gate.RLock()
	if s.closed {
		s.gate.RUnlock()
		return attempt{served: true}
	}
	var done uint64
	var end outcome
	var err error
	run, ok := s.lookup(address)
	if !ok {
		atomic.AddUint64(&f.journal.head.zeros, 1)
		end, err = s.zero(address)
	} else {
		pages := uint64(1)
		if atomic.LoadUint32(&f.journal.head.complete) != 0 {
			pages = min(run.Pages, faultPages)
		}
		pages = f.source.Has(run.Slot, pages)
		if pages == 0 {
			s.gate.RUnlock()
			return attempt{slot: run.Slot}
		}
		var view []byte
		if view, err = f.source.View(run.Slot, pages); err == nil {
			done, end, err = s.fill(address, view)
		}
	}
	fed := s.fed(address, address+done*pageSize)
	if done > 0 || end == unmapped {
		// A page that was there already: whoever waits was not woken by the fill.
		_ = s.fd.Wake(address, pageSize)
	}
	s.gate.RUnlock()
	f.release(fed)
	if end == gone {
		f.finish(s)
		return attempt{served: true}
	}
	if errors.Is(err, ErrStore) {
		f.fail(err)
	} else if err != nil {
		f.log.Error("cannot serve a fault, trying again", "process", s.pid, "address", address, "error", err)
	}
	if err != nil {
		return attempt{wait: errorWait}
	}
	return next(end, done)
}

// next is what becomes of a fault whose fill ended so.
func next(end outcome, done uint64) attempt {
	switch {
	case done > 0, end == filled, end == unmapped:
		return attempt{served: true}
	case end == changing:
		return attempt{wait: eventWait}
	default:
		return attempt{wait: memoryWait}
	}
}
