package pages

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/zeebo/xxh3"

	"github.com/livemigrate/migrate/internal/sys/mapping"
)

// ErrStoreFull: there are more pages than the peer's store may hold. A larger limit there, or less memory here.
var ErrStoreFull = errors.New("store of pages is full")

// record is what is known of one slot. Slots beyond the records have none: they belong to one page, and are never shared.
type record struct {
	digest xxh3.Uint128
	refs   uint32 // pages that have this slot
	next   uint32 // in the chain of the digest's bucket
}

// slots are the slots of the peer's store: which are free, what is in them, who needs them.
//
// 28 bytes a slot have a bound (24 of the record, 4 of the bucket). Beyond it pages cost 4 bits and are not compared any more:
// they are sent whenever they are read, as is right for a tracker that knows what was written.
type slots struct {
	first   uint32 // the first slot that is given away
	limit   uint32 // the last slot there is
	top     uint32 // the last one that was ever in use
	free    uint64 // below top
	lowest  int    // no word of used below this one has room
	used    []uint64
	written []uint64 // in this round: what is at the peer is not sure yet
	leaving []uint64 // free after this round
	owed    []uint64 // promised to a page, but nothing was sent for it yet
	records *mapping.Table[record]
	buckets []uint32 // first slot of each chain, 0 for none; a power of two
	indexed int
	touched uint32 // of no meaning
}

func newSlots(first, limit uint64, records int) (*slots, error) {
	if first > limit {
		return nil, fmt.Errorf("%w: it ends before slot %d", ErrStoreFull, first)
	}
	table, err := mapping.NewTable[record](min(records, int(limit)+1))
	if err != nil {
		return nil, err
	}
	s := &slots{first: uint32(first), limit: uint32(limit), records: table, buckets: make([]uint32, 1024)}
	s.reach(s.first - 1)
	for slot := range s.first {
		s.used[slot/64] |= 1 << (slot % 64)
	}
	return s, nil
}

func (s *slots) record(slot uint32) *record {
	if int(slot) < len(s.records.Rows) {
		return &s.records.Rows[slot]
	}
	return nil
}

// take gives a slot that no page has: the lowest one that is free, so that the store stays dense.
func (s *slots) take() (uint32, error) {
	if s.free > 0 {
		for w := s.lowest; w < len(s.used); w++ {
			if s.used[w] == 1<<64-1 {
				continue
			}
			slot := uint32(w*64 + bits.TrailingZeros64(^s.used[w]))
			s.lowest = w
			if slot > s.top || slot == 0 {
				break
			}
			s.free--
			s.used[w] |= 1 << (slot % 64)
			s.open(slot)
			return slot, nil
		}
	}
	return s.fresh()
}

// reach makes slot one of those that were ever in use.
func (s *slots) reach(slot uint32) {
	s.top = max(s.top, slot)
	for int(s.top/64) >= len(s.used) {
		s.used = append(s.used, 0)
		s.written = append(s.written, 0)
		s.leaving = append(s.leaving, 0)
		s.owed = append(s.owed, 0)
	}
}

// fresh gives a slot that no page ever had.
func (s *slots) fresh() (uint32, error) {
	if s.top == s.limit {
		return 0, fmt.Errorf("%w: its %d pages are in use", ErrStoreFull, s.limit)
	}
	s.reach(s.top + 1)
	s.used[s.top/64] |= 1 << (s.top % 64)
	s.open(s.top)
	return s.top, nil
}

func (s *slots) open(slot uint32) {
	if r := s.record(slot); r != nil {
		*r = record{refs: 1}
	}
}

// release says that one page less has the slot. The last one leaves it, but it is not free before the round's end: a frame with
// its old content may still be on its way.
func (s *slots) release(slot uint32) {
	if r := s.record(slot); r != nil {
		if r.refs--; r.refs > 0 {
			return
		}
		s.unindex(slot, r)
	}
	s.leaving[slot/64] |= 1 << (slot % 64)
	s.owed[slot/64] &^= 1 << (slot % 64)
}

// sole says that one page alone has the slot.
func (s *slots) sole(slot uint32) bool {
	r := s.record(slot)
	return r == nil || r.refs == 1
}

func (s *slots) isWritten(slot uint32) bool { return s.written[slot/64]>>(slot%64)&1 != 0 }
func (s *slots) isOwed(slot uint32) bool    { return s.owed[slot/64]>>(slot%64)&1 != 0 }
func (s *slots) promise(slot uint32)        { s.owed[slot/64] |= 1 << (slot % 64) }

// write notes that a frame with the slot is on its way.
func (s *slots) write(slot uint32) {
	s.written[slot/64] |= 1 << (slot % 64)
	s.owed[slot/64] &^= 1 << (slot % 64)
}

// arrived notes that what was written to the slot in this round is there.
func (s *slots) arrived(slot uint32) { s.written[slot/64] &^= 1 << (slot % 64) }

// recall makes what was written in this round owed again.
func (s *slots) recall() {
	for w, written := range s.written {
		s.owed[w] |= written
		for ; written != 0; written &= written - 1 {
			slot := uint32(w*64 + bits.TrailingZeros64(written))
			if r := s.record(slot); r != nil {
				s.unindex(slot, r)
			}
		}
		s.written[w] = 0
	}
}

// settle ends a round: what was written is at the peer, and what was left is free.
func (s *slots) settle() {
	clear(s.written)
	for w, left := range s.leaving {
		if left == 0 {
			continue
		}
		s.used[w] &^= left
		s.free += uint64(bits.OnesCount64(left))
		s.leaving[w] = 0
		s.lowest = min(s.lowest, w)
	}
}

// touch brings what find reads into the processor's cache: here it waits for many places of memory at a time, there for one
// after the other.
func (s *slots) touch(pages []seen) {
	var slots [step]uint32
	for len(pages) > 0 {
		n := min(len(pages), step)
		for i := range pages[:n] {
			slots[i] = s.buckets[s.bucket(pages[i].digest)]
		}
		for _, slot := range slots[:n] {
			s.touched += s.records.Rows[slot].refs
		}
		pages = pages[n:]
	}
}

// find is the slot that holds a page of this digest, 0 for none.
func (s *slots) find(digest xxh3.Uint128) uint32 {
	slot := s.buckets[s.bucket(digest)]
	for slot != 0 {
		r := &s.records.Rows[slot]
		if r.digest == digest {
			return slot
		}
		slot = r.next
	}
	return 0
}

// holds says that the slot's page has this digest.
func (s *slots) holds(slot uint32, digest xxh3.Uint128) bool {
	r := s.record(slot)
	return r != nil && r.digest == digest
}

func (s *slots) bucket(digest xxh3.Uint128) uint64 { return digest.Lo & uint64(len(s.buckets)-1) }

// index notes what will be in the slot.
func (s *slots) index(slot uint32, digest xxh3.Uint128) {
	r := s.record(slot)
	if r == nil {
		return
	}
	s.unindex(slot, r)
	if s.indexed == len(s.buckets) {
		s.grow()
	}
	b := s.bucket(digest)
	r.digest, r.next = digest, s.buckets[b]
	s.buckets[b] = slot
	s.indexed++
}

func (s *slots) unindex(slot uint32, r *record) {
	if r.digest == (xxh3.Uint128{}) {
		return
	}
	link := &s.buckets[s.bucket(r.digest)]
	for *link != slot {
		link = &s.records.Rows[*link].next
	}
	*link = r.next
	r.digest, r.next = xxh3.Uint128{}, 0
	s.indexed--
}

func (s *slots) grow() {
	old := s.buckets
	s.buckets = make([]uint32, 2*len(old))
	for _, slot := range old {
		for slot != 0 {
			r := &s.records.Rows[slot]
			next := r.next
			b := s.bucket(r.digest)
			r.next, s.buckets[b] = s.buckets[b], slot
			slot = next
		}
	}
}
