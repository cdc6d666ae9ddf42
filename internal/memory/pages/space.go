package pages

import (
	"maps"
	"math/bits"
	"slices"

	"github.com/livemigrate/migrate/internal/memory"
)

// space says where each page of one address space is in the store. It is cut in chunks of 2 MiB. Most chunks are linear:
// their pages were met in order and have got slots in order, so that a bitmap and one number say it all (160 bytes a chunk,
// 5 MB for 64 GB); the others hold a slot for each page (2 KB more).
type space struct {
	chunks map[uint64]*chunk // by address / chunkBytes
}

const (
	chunkPages = 512
	chunkBytes = chunkPages * memory.PageSize
)

type pageSet [chunkPages / 64]uint64

func (s *pageSet) has(i uint64) bool { return s[i/64]>>(i%64)&1 != 0 }
func (s *pageSet) add(i uint64)      { s[i/64] |= 1 << (i % 64) }
func (s *pageSet) remove(i uint64)   { s[i/64] &^= 1 << (i % 64) }

func (s *pageSet) empty() bool { return *s == pageSet{} }

// chunk: a page that is in stored has the slot slots[i], or base+i where slots is nil; one in zero has slot 0. A page in
// neither is not known to the peer.
type chunk struct {
	stored, zero pageSet
	base         uint32 // of a linear chunk; wraps below 0
	slots        *[chunkPages]uint32
}

func newSpace() *space { return &space{chunks: map[uint64]*chunk{}} }

// get is the slot of a page: 0 with known for a page of zeros.
func (s *space) get(addr uint64) (slot uint32, known bool) {
	c := s.chunks[addr/chunkBytes]
	if c == nil {
		return 0, false
	}
	return c.get(addr % chunkBytes / memory.PageSize)
}

func (c *chunk) get(i uint64) (slot uint32, known bool) {
	switch {
	case !c.stored.has(i):
		return 0, c.zero.has(i)
	case c.slots != nil:
		return c.slots[i], true
	}
	return c.base + uint32(i), true
}

// set gives a page a slot; 0 for a page of zeros.
func (s *space) set(addr uint64, slot uint32) {
	c := s.chunks[addr/chunkBytes]
	if c == nil {
		c = &chunk{}
		s.chunks[addr/chunkBytes] = c
	}
	i := addr % chunkBytes / memory.PageSize
	if slot == 0 {
		c.stored.remove(i)
		c.zero.add(i)
		return
	}
	switch {
	case c.slots != nil:
		c.slots[i] = slot
	case c.stored.empty():
		c.base = slot - uint32(i)
	case c.base+uint32(i) != slot:
		c.slots = new([chunkPages]uint32)
		for j := range uint32(chunkPages) {
			c.slots[j] = c.base + j
		}
		c.slots[i] = slot
	}
	c.stored.add(i)
	c.zero.remove(i)
}

// remove forgets the pages of r, and calls each for every slot that one of them had.
func (s *space) remove(r memory.Range, each func(slot uint32)) {
	s.within(r, func(key uint64, c *chunk, first, last uint64) {
		for i := first; i < last; i++ {
			if slot, _ := c.get(i); slot != 0 {
				each(slot)
			}
			c.stored.remove(i)
			c.zero.remove(i)
		}
		if c.stored.empty() && c.zero.empty() {
			delete(s.chunks, key)
		}
	})
}

// within calls each for the chunks that r touches, with the pages of the chunk that are in r. A range may be far larger than
// what is known of it.
func (s *space) within(r memory.Range, each func(key uint64, c *chunk, first, last uint64)) {
	if r.Pages == 0 {
		return
	}
	from, to := r.Start/chunkBytes, (r.End()-1)/chunkBytes
	visit := func(key uint64, c *chunk) {
		start := key * chunkBytes
		first, last := uint64(0), uint64(chunkPages)
		if start < r.Start {
			first = (r.Start - start) / memory.PageSize
		}
		if end := r.End(); end < start+chunkBytes {
			last = (end - start) / memory.PageSize
		}
		each(key, c, first, last)
	}
	if to-from >= uint64(len(s.chunks)) {
		for key, c := range s.chunks {
			if key >= from && key <= to {
				visit(key, c)
			}
		}
		return
	}
	for key := from; key <= to; key++ {
		if c := s.chunks[key]; c != nil {
			visit(key, c)
		}
	}
}

// Run is a run of pages of one address space that have slots one behind the other, or that are all zeros, with slot 0.
type Run struct {
	Start uint64 // address of the first page
	Pages uint64
	Slot  uint64 // of the first page; 0: all pages are zeros
}

// runs are all pages that are known, in the order of their addresses, merged.
func (s *space) runs() []Run {
	var out []Run
	for _, key := range slices.Sorted(maps.Keys(s.chunks)) {
		c := s.chunks[key]
		for w := range c.stored {
			for set := c.stored[w] | c.zero[w]; set != 0; set &= set - 1 {
				i := uint64(w*64 + bits.TrailingZeros64(set))
				slot, _ := c.get(i)
				addr := key*chunkBytes + i*memory.PageSize
				if n := len(out); n > 0 && out[n-1].follows(addr, uint64(slot)) {
					out[n-1].Pages++
					continue
				}
				out = append(out, Run{Start: addr, Pages: 1, Slot: uint64(slot)})
			}
		}
	}
	return out
}

func (r Run) follows(addr, slot uint64) bool {
	if r.Start+r.Pages*memory.PageSize != addr {
		return false
	}
	if r.Slot == 0 || slot == 0 {
		return r.Slot == slot
	}
	return r.Slot+r.Pages == slot
}
