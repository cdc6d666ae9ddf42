package feed

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

const (
	pushers   = 2
	pushPages = 64 // what one pusher takes at a time: a fault waits for it to be filled

	// A pusher waits while the last fault is younger than this, because a program that has faulted is about to fault again, and
	// two that fill the same space are in each other's way. It does not wait for ever: a program may never stop.
	faultRest    = 300 * time.Microsecond
	faultRestMax = 4 * time.Millisecond
)

// push feeds what nobody asks for, once CRIU has registered everything: before that a page that is not registered yet would
// look like one that is gone.
func (f *feeder) push(ctx context.Context) {
	for ctx.Err() == nil {
		s := f.hungry()
		if s == nil {
			f.awaitWork(ctx)
			continue
		}
		start, end, ok := s.claim(pushPages)
		if !ok {
			continue
		}
		f.giveWay()
		f.prepare(s, start, end)
		f.pushRange(ctx, s, start, end)
		if s.complete() {
			f.finish(s)
		}
	}
}

// hungry is the first space that misses something: a child that was born since is likely to have ended before its turn comes.
func (f *feeder) hungry() *space {
	if atomic.LoadUint32(&f.journal.head.complete) == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.spaces {
		if !s.complete() {
			return s
		}
	}
	return nil
}

func (f *feeder) awaitWork(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-f.work:
	case <-time.After(tick):
	}
}

// wakePushers never blocks: each pusher that waits takes one token.
func (f *feeder) wakePushers() {
	for range pushers {
		select {
		case f.work <- struct{}{}:
		default:
		}
	}
}

func (f *feeder) giveWay() {
	for begun := time.Now(); time.Since(begun) < faultRestMax; time.Sleep(faultRest) {
		if time.Since(time.Unix(0, f.faulted.Load())) > faultRest {
			return
		}
	}
}

// prepare brings the pages in.
func (f *feeder) prepare(s *space, start, end uint64) {
	for _, r := range s.within(start, end) {
		if n := f.source.Has(r.Slot, r.Pages); n > 0 {
			if view, err := f.source.View(r.Slot, n); err == nil {
				ready(view)
			}
		}
	}
}

// pushRange feeds what is missing between two addresses.
func (f *feeder) pushRange(ctx context.Context, s *space, start, end uint64) {
	for start < end && ctx.Err() == nil {
		at, a, over := f.fillRange(s, start, end)
		if over {
			return
		}
		start = at
		if !a.served {
			f.wait(ctx, a, false)
		}
	}
}

// fillRange feeds as much as it can at one go and returns where it came to.
func (f *feeder) fillRange(s *space, start, end uint64) (at uint64, a attempt, over bool) {
	s.gate.RLock()
	if s.closed {
		s.gate.RUnlock()
		return end, a, true
	}
	var stop outcome
	var err error
	at, a.served = end, true
	for _, run := range s.within(start, end) {
		pages := f.source.Has(run.Slot, run.Pages)
		if pages == 0 {
			at, a = run.Start, attempt{slot: run.Slot}
			break
		}
		var view []byte
		if view, err = f.source.View(run.Slot, pages); err != nil {
			at = run.Start
			break
		}
		var done uint64
		done, stop, err = s.fill(run.Start, view)
		if stop == unmapped {
			done++ // gone, or else an event would tell
		}
		if done < run.Pages {
			at = run.Start + done*pageSize
			break
		}
	}
	fed := s.fed(start, at)
	s.gate.RUnlock()
	f.release(fed)
	switch {
	case errors.Is(err, ErrStore):
		f.fail(err)
		a = attempt{wait: errorWait}
	case err != nil:
		f.log.Error("cannot push pages, trying again", "process", s.pid, "error", err)
		a = attempt{wait: errorWait}
	case stop == gone:
		f.finish(s)
		return at, a, true
	case stop == changing:
		a = attempt{wait: eventWait}
	case stop == impatient:
		a = attempt{wait: memoryWait}
	}
	return at, a, false
}
