package feed

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/livemigrate/migrate/internal/sys/pagemap"
)

var (
	// ErrPresent: a page that is yet to come is in place. What is put there later is not taken (EEXIST), so that the process would
	// run on what is in the page now, most likely zeros. Kill the tree: none of it has run.
	ErrPresent = errors.New("memory that is yet to come is in place already, and would stay as it is")
	// ErrWithheld: CRIU has restored a process of the layout without handing over its memory. Kill the tree: none of it has run.
	ErrWithheld = errors.New("the memory of a process was not handed over")
)

// begin is when CRIU has said that all tasks are there. None has run an instruction of its own, and none does before they are
// Complete, which says from here on that pages may be pushed, too. What is in place that is missing by our list is seen now and
// never again: as long as an area is registered nothing gets there but by a feeder, and a page that two of our goroutines have
// filled looks the same as one that was there before.
func (f *feeder) begin() error {
	begun := time.Now()
	if err := f.verify(); err != nil {
		return err
	}
	f.log.Debug("nothing is in place that is yet to come", "took", time.Since(begun))
	atomic.StoreUint32(&f.journal.head.complete, 1)
	f.wakePushers()
	return nil
}

// verify makes sure that every page is missing that is to be fed. In place are by right
//
//   - those that CRIU restores itself, which are not in the layout: of files, locked, or where a stack pointer is;
//   - those that a thread has waited for meanwhile (an rseq area, say), by which the kernel itself has said that they were
//     missing: a feeder filled them, which may have been killed before it could note that;
//   - those that are zero, also by the layout.
func (f *feeder) verify() error {
	for pid := range f.awaited {
		if !f.layout[pid].empty() {
			return fmt.Errorf("%w: %d", ErrWithheld, pid)
		}
	}
	for _, s := range f.list() {
		err := f.eyes.verify(s)
		if err != nil && s.alive() { // the restore fails anyway when one is gone
			return err
		}
	}
	return nil
}

// eyes are what page maps are looked at with, made before anything stands still.
type eyes struct {
	scan    bool // the kernel has PAGEMAP_SCAN
	regions []pagemap.Region
	entries []pagemap.Entry // else
}

const (
	regionsAtOnce = 512
	entriesAtOnce = 8192
	// Gaps between runs that are read over: reading a few entries more is less than another call.
	gapEntries = 512
)

func newEyes() *eyes {
	if pagemap.HaveScan() == nil {
		return &eyes{scan: true, regions: make([]pagemap.Region, regionsAtOnce)}
	}
	return &eyes{entries: make([]pagemap.Entry, entriesAtOnce)}
}

// verify looks at one process, of which nothing changes meanwhile. One that was born of another since is none that CRIU made,
// and has what that one had.
func (y *eyes) verify(s *space) error {
	s.gate.Lock() // no fill is under way that is not noted
	defer s.gate.Unlock()
	if s.closed || s.host == 0 || s.complete() {
		return nil
	}
	m, err := pagemap.Open(s.host, y.regions)
	if err != nil {
		return fmt.Errorf("verify memory of process %d: %w", s.pid, err)
	}
	defer m.Close()
	found := intruders{space: s}
	if y.scan {
		err = y.scanAll(m, &found)
	} else {
		err = y.readAll(m, &found)
	}
	if err != nil {
		return fmt.Errorf("verify memory of process %d: %w", s.pid, err)
	}
	return found.err()
}

// scanAll asks for all that is there, which is little before the memory is: what is not mapped, or has no page tables, the
// kernel skips.
func (y *eyes) scanAll(m *pagemap.Map, found *intruders) error {
	first, last := found.space.left.bounds()
	return m.Scan(pagemap.Query{
		Start: first, End: last,
		Any: pagemap.Present | pagemap.Swapped, Return: pagemap.Zero,
	}, func(regions []pagemap.Region) {
		for _, r := range regions {
			found.look(r)
		}
	})
}

// readAll reads the entries of the runs, neighbouring ones together: eight bytes a page.
func (y *eyes) readAll(m *pagemap.Map, found *intruders) error {
	var start, end uint64
	read := func() error {
		for at := start; at < end; at += uint64(len(y.entries)) * pageSize {
			entries := y.entries[:min(uint64(len(y.entries)), (end-at)/pageSize)]
			if err := m.ReadEntries(at, entries); err != nil {
				return err
			}
			for i, e := range entries {
				if e&(pagemap.EntryPresent|pagemap.EntrySwapped) != 0 {
					page := at + uint64(i)*pageSize
					found.look(pagemap.Region{Start: page, End: page + pageSize})
				}
			}
		}
		return nil
	}
	for _, piece := range found.space.left.pieces {
		for _, r := range piece {
			if end == 0 || r.Start > end+gapEntries*pageSize {
				if err := read(); err != nil {
					return err
				}
				start = r.Start
			}
			end = r.End()
		}
	}
	return read()
}

// intruders are pages of a space that are in place, and are not to be.
type intruders struct {
	space *space
	pages uint64
	first uint64
	is    pagemap.Category
}

// look takes those of a region that is in place.
func (i *intruders) look(region pagemap.Region) {
	for _, run := range i.space.left.within(nil, region.Start, region.End, ^uint64(0)) {
		for at := run.Start; at < run.End(); at += pageSize {
			if i.space.waited[at] {
				continue
			}
			if i.pages == 0 {
				i.first, i.is = at, region.Is
			}
			i.pages++
		}
	}
}

func (i *intruders) err() error {
	if i.pages == 0 {
		return nil
	}
	why := "whoever restored it has put it there"
	switch {
	case i.is&pagemap.Zero != 0:
		why = "whoever restored it has read there"
	case i.pages > 1: // a huge page is one no more when CRIU has moved a part of it
		why += ", maybe for a page beside it, as transparent huge pages do"
	}
	return fmt.Errorf("%w: process %d, at %#x: %s (%d pages in all)", ErrPresent, i.space.pid, i.first, why, i.pages)
}

// note has it known, to a successor too, that a thread waits for a page before all tasks are there. The fault is the message
// that was read last, and not served yet.
func (f *feeder) note(s *space, address uint64) error {
	if atomic.LoadUint32(&f.journal.head.complete) != 0 {
		return nil
	}
	entry, err := f.journal.entry(f.journal.next)
	if err != nil {
		return err
	}
	s.wait(address)
	atomic.StoreUint32(&entry.state, entryWaited)
	f.journal.next++
	return nil
}

func (s *space) wait(address uint64) {
	if s.waited == nil {
		s.waited = map[uint64]bool{}
	}
	s.waited[address] = true
}
