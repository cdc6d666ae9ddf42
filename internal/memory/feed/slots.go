package feed

import (
	"math"
	"sync"
)

// slots counts how many pages still need each slot, and frees those that none does.
type slots struct {
	mu      sync.Mutex
	needed  []uint8 // math.MaxUint8 stays: such a slot is kept until the end
	journal *journal
}

func newSlots(n uint64, j *journal) (*slots, error) {
	if err := j.slots(n); err != nil {
		return nil, err
	}
	return &slots{needed: make([]uint8, n), journal: j}, nil
}

// need counts the runs' pages.
func (s *slots) need(list []Run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range list {
		part := s.needed[r.Slot : r.Slot+r.Pages]
		for i := range part {
			if part[i] < math.MaxUint8 {
				part[i]++
			}
		}
	}
}

// done tells that the runs' pages are fed, or needed no more, and returns the slots that nobody needs now as runs of them
// without an address. The journal knows of these already.
func (s *slots) done(list []Run) []Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	var free []Run
	for _, r := range list {
		for slot := r.Slot; slot < r.Slot+r.Pages; slot++ {
			n := &s.needed[slot]
			if *n == math.MaxUint8 {
				continue
			}
			*n--
			if *n > 0 {
				continue
			}
			s.journal.spent[slot/8] |= 1 << (slot % 8)
			if last := len(free) - 1; last >= 0 && free[last].Slot+free[last].Pages == slot {
				free[last].Pages++
				continue
			}
			var one Run
			one.Slot, one.Pages = slot, 1
			free = append(free, one)
		}
	}
	return free
}

// unspent is the part of a list that is not fed yet, as far as the journal knows: what it lacks here is in its place, or was
// taken away since.
func (s *slots) unspent(list []Run) []Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	spent := func(slot uint64) bool { return s.journal.spent[slot/8]&(1<<(slot%8)) != 0 }
	var left []Run
	for _, r := range list {
		for r.Pages > 0 {
			var n uint64
			for n < r.Pages && !spent(r.Slot+n) {
				n++
			}
			if n > 0 {
				left = append(left, r.part(r.Start, r.Start+n*pageSize))
			}
			for n < r.Pages && spent(r.Slot+n) {
				n++
			}
			r = Run{Range: r.Range, Slot: r.Slot + n}
			r.Start, r.Pages = r.Start+n*pageSize, r.Pages-n
		}
	}
	return left
}
