package pages

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/zeebo/xxh3"

	"github.com/livemigrate/migrate/internal/memory"
)

// Ledger is what the source knows of the peer's store: for each page of each address space the slot that holds it. Equal
// pages share a slot, so that memory which forks have in common travels once, and a page that was read again without having
// changed is not sent again. It is safe for use by several goroutines.
//
// Rounds: pages are sent in any order over several lanes, so a slot is written once between two barriers (Settle), and one that
// no page needs any more is not used for another page before the next.
type Ledger struct {
	seed uint64

	mu     sync.Mutex
	slots  *slots
	spaces map[uint64]*space
	fixed  bool // the peer has the layout
}

// ErrFixed: a page was read that is not in the layout that the peer has, or that was zero in it.
var ErrFixed = errors.New("page is not in the layout that the peer has")

// LedgerOptions bound a ledger.
type LedgerOptions struct {
	// Slots is the last slot that the peer's store can hold. MaxSlot if 0.
	Slots uint64
	// First is the slot that the first page gets. 1 if 0.
	First uint64
	// Digests is for how many slots digests are kept, 24 to 28 bytes each; pages beyond are sent whenever they are read, and
	// share nothing. 1.5 million (6 GB of different pages, 44 MB) if 0.
	Digests int
}

const defaultDigests = 3 << 19

// NewLedger makes an empty one: the peer's store is empty too. nil options are the defaults. The caller closes it.
func NewLedger(options *LedgerOptions) (*Ledger, error) {
	o := LedgerOptions{}
	if options != nil {
		o = *options
	}
	if o.Slots == 0 || o.Slots > MaxSlot {
		o.Slots = MaxSlot
	}
	if o.Digests <= 0 {
		o.Digests = defaultDigests
	}
	table, err := newSlots(max(o.First, 1), o.Slots, o.Digests)
	if err != nil {
		return nil, fmt.Errorf("make ledger: %w", err)
	}
	// xxh3 is no cryptographic hash. Who can write memory, and knows the seed, could make a page that counts as equal to
	// another one's; nobody knows it.
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, fmt.Errorf("make ledger: %w", err)
	}
	return &Ledger{seed: binary.LittleEndian.Uint64(seed[:]), slots: table, spaces: map[uint64]*space{}}, nil
}

// Close frees the ledger. It is not used any more.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slots.records.Close()
}

// digest tells pages apart. It is never the zero value, which stands for "unknown".
func (l *Ledger) digest(page []byte) xxh3.Uint128 {
	d := xxh3.Hash128Seed(page, l.seed)
	if d == (xxh3.Uint128{}) {
		d.Lo = 1
	}
	return d
}

// verdict is what becomes of a page that was read.
type verdict struct {
	kind kind
	slot uint32 // of toSend
}

type kind uint8

const (
	zero   kind = iota // a page of zeros: the peer needs no bytes for it
	same               // the peer has it already
	shared             // the peer has, or gets, another page that is equal
	toSend             // its bytes belong in the slot
)

// seen is a page that was read: its address, whether it is all zeros, otherwise its digest.
type seen struct {
	addr   uint64
	zero   bool
	digest xxh3.Uint128
}

// note enters pages of a space, and appends a verdict for each.
func (l *Ledger) note(id uint64, pages []seen, verdicts []verdict) ([]verdict, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.spaces[id]
	if s == nil {
		s = newSpace()
		l.spaces[id] = s
	}
	l.slots.touch(pages)
	for i := range pages {
		v, err := l.notePage(s, &pages[i])
		if err != nil {
			return verdicts, err
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, nil
}

func (l *Ledger) notePage(s *space, p *seen) (verdict, error) {
	old, known := s.get(p.addr)
	if l.fixed {
		return l.noteFixed(p, old, known)
	}
	if p.zero {
		if old != 0 {
			l.slots.release(old)
		}
		s.set(p.addr, 0)
		return verdict{kind: zero}, nil
	}
	if old != 0 && l.slots.holds(old, p.digest) {
		return verdict{kind: same}, nil
	}
	if twin := l.slots.find(p.digest); twin != 0 {
		l.slots.record(twin).refs++
		if old != 0 {
			l.slots.release(old)
		}
		s.set(p.addr, twin)
		return verdict{kind: shared}, nil
	}
	slot := old
	if old == 0 || !l.slots.sole(old) || l.slots.isWritten(old) {
		var err error
		if slot, err = l.slots.take(); err != nil {
			return verdict{}, err
		}
		if old != 0 {
			l.slots.release(old)
		}
		s.set(p.addr, slot)
	}
	l.slots.index(slot, p.digest)
	l.slots.write(slot)
	return verdict{kind: toSend, slot: slot}, nil
}

// noteFixed: the page goes to the slot that was promised for it, whatever is in it: the peer waits for that one.
func (l *Ledger) noteFixed(p *seen, slot uint32, known bool) (verdict, error) {
	switch {
	case !known || slot == 0 && !p.zero:
		return verdict{}, fmt.Errorf("%w: %#x", ErrFixed, p.addr)
	case slot == 0:
		return verdict{kind: zero}, nil
	case !l.slots.isOwed(slot):
		return verdict{kind: same}, nil
	}
	l.slots.write(slot)
	return verdict{kind: toSend, slot: slot}, nil
}

// Gone forgets pages that are not there any more: unmapped, or dropped by the task.
func (l *Ledger) Gone(id uint64, ranges []memory.Range) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.spaces[id]; s != nil {
		for _, r := range ranges {
			s.remove(r, l.slots.release)
		}
	}
}

// Keep forgets all pages of a space that are in none of the ranges, which are in order and do not overlap.
func (l *Ledger) Keep(id uint64, ranges []memory.Range) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.spaces[id]
	if s == nil {
		return
	}
	at := uint64(0)
	for _, r := range ranges {
		if r.Start > at {
			s.remove(memory.Range{Start: at, Pages: (r.Start - at) / memory.PageSize}, l.slots.release)
		}
		at = r.End()
	}
	s.remove(memory.Range{Start: at, Pages: (1<<63 - at) / memory.PageSize}, l.slots.release)
}

// Drop forgets a space: its last task has ended, or has become another program.
func (l *Ledger) Drop(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.spaces[id]; s != nil {
		for _, c := range s.chunks {
			c.each(l.slots.release)
		}
		delete(l.spaces, id)
	}
}

func (c *chunk) each(do func(slot uint32)) {
	for i := range uint64(chunkPages) {
		if slot, _ := c.get(i); slot != 0 {
			do(slot)
		}
	}
}

// Settle is the barrier at the end of a round: the peer has acknowledged that it has stored all frames so far.
func (l *Ledger) Settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slots.settle()
}

// Abandon ends a round that failed: what the peer has in the slots written since the last Settle is not known, so that their pages
// are forgotten, or in a fixed ledger owed again, and in any case Missing. The lanes of that round must be closed, at both ends, before a frame is sent again.
func (l *Ledger) Abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.abandon()
}

// Regain is Abandon where the peer has told what it has stored since the last Settle: what is in those slots counts.
func (l *Ledger) Regain(have []Slots) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range have {
		for slot := r.First; slot-r.First < r.Pages && slot <= uint64(l.slots.top); slot++ {
			l.slots.arrived(uint32(slot))
		}
	}
	l.abandon()
}

func (l *Ledger) abandon() {
	if l.fixed {
		l.slots.recall()
		return
	}
	for _, s := range l.spaces {
		for key, c := range s.chunks {
			for i := range uint64(chunkPages) {
				if slot, _ := c.get(i); slot != 0 && l.slots.isWritten(slot) {
					c.stored.remove(i)
					l.slots.release(slot)
				}
			}
			if c.stored.empty() && c.zero.empty() {
				delete(s.chunks, key)
			}
		}
	}
	l.slots.settle()
}

// Spaces are the ids of all spaces that have pages, in order.
func (l *Ledger) Spaces() []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.spaces))
}

// Runs are the pages of a space that the peer has, in the order of their addresses, merged where pages and slots follow each other.
func (l *Ledger) Runs(id uint64) []Run {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.spaces[id]; s != nil {
		return s.runs()
	}
	return nil
}

// Missing are the pages of the ranges that the peer does not have.
func (l *Ledger) Missing(id uint64, ranges []memory.Range) []memory.Range {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.spaces[id]
	if s == nil {
		return slices.Clone(ranges)
	}
	var out []memory.Range
	for _, r := range ranges {
		for addr := r.Start; addr < r.End(); {
			c := s.chunks[addr/chunkBytes]
			end := min(r.End(), (addr/chunkBytes+1)*chunkBytes)
			if c == nil {
				out = join(out, memory.Range{Start: addr, Pages: (end - addr) / memory.PageSize})
				addr = end
				continue
			}
			for ; addr < end; addr += memory.PageSize {
				slot, known := c.get(addr % chunkBytes / memory.PageSize)
				if !known || slot != 0 && l.slots.isOwed(slot) {
					out = join(out, memory.Range{Start: addr, Pages: 1})
				}
			}
		}
	}
	return out
}

// join appends a range, to the last one where they touch.
func join(ranges []memory.Range, r memory.Range) []memory.Range {
	if n := len(ranges); n > 0 && ranges[n-1].End() == r.Start {
		ranges[n-1].Pages += r.Pages
		return ranges
	}
	return append(ranges, r)
}

// Usage is how much a ledger holds.
type Usage struct {
	Slots  uint64 // in use at the peer, in pages
	Top    uint64 // the last slot that was ever used
	Unique int    // slots whose digest is known
}

// Usage tells how much the ledger holds.
func (l *Ledger) Usage() Usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Usage{Slots: uint64(l.slots.top) - uint64(l.slots.first-1) - l.slots.free, Top: uint64(l.slots.top), Unique: l.slots.indexed}
}
