package pages

import "github.com/livemigrate/migrate/internal/memory"

// Promise gives slots to pages whose bytes will follow when the tasks run at the peer already (post-copy). Pages of the ranges that
// have slots keep them. Until they are sent the pages are Missing, but the Runs have them. A promised slot was never used before: one
// number, Usage.Top from before, tells the peer which pages it does not have yet.
func (l *Ledger) Promise(id uint64, ranges []memory.Range) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.spaces[id]
	if s == nil {
		s = newSpace()
		l.spaces[id] = s
	}
	for _, r := range ranges {
		for addr := r.Start; addr < r.End(); addr += memory.PageSize {
			if _, known := s.get(addr); known {
				continue
			}
			slot, err := l.slots.fresh()
			if err != nil {
				return err
			}
			s.set(addr, slot)
			l.slots.promise(slot)
		}
	}
	return nil
}

// Fix says that the peer gets the Runs as they are now: from here on no page changes its slot, and only what is owed is sent, be
// it zeros. The tasks stand still at the source, for good.
func (l *Ledger) Fix() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fixed = true
}

// Owed are the pages of a space that were promised and not sent yet, in the order of their addresses.
func (l *Ledger) Owed(id uint64) []memory.Range {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.spaces[id]
	if s == nil {
		return nil
	}
	var out []memory.Range
	for _, r := range s.runs() {
		for i := uint64(0); i < r.Pages && r.Slot != 0; i++ {
			if l.slots.isOwed(uint32(r.Slot + i)) {
				out = join(out, memory.Range{Start: r.Start + i*memory.PageSize, Pages: 1})
			}
		}
	}
	return out
}

// Recall says what the peer has of the pages in the slots from first on; the others are owed, whether they were sent or not: what
// was under way when a link was lost may not have come. Only after Fix.
func (l *Ledger) Recall(first uint64, have []Slots) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slots.recall()
	top := uint64(l.slots.top)
	for slot := first; slot <= top; slot++ {
		l.slots.owed[slot/64] |= 1 << (slot % 64)
	}
	for _, r := range have {
		for slot := r.First; slot < r.First+r.Pages && slot <= top; slot++ {
			l.slots.owed[slot/64] &^= 1 << (slot % 64)
		}
	}
}

// Enter makes a ledger that is fixed out of Runs of one that is gone: nothing is owed before Recall.
func (l *Ledger) Enter(id uint64, runs []Run) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fixed = true
	s := newSpace()
	l.spaces[id] = s
	for _, r := range runs {
		for i := range r.Pages {
			slot := uint32(0)
			if r.Slot != 0 {
				slot = uint32(r.Slot + i)
				l.slots.reach(slot)
			}
			s.set(r.Start+i*memory.PageSize, slot)
		}
	}
}
