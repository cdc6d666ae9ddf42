package feed

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/mapping"
	"github.com/livemigrate/migrate/internal/sys/uffd"
)

// space is an address space that is being fed.
type space struct {
	id  int // the journal's entry that it began with
	pid int // what the layout calls it; of a child born since, its ancestor's
	fd  uffd.FD

	host   int             // what we call the process; 0 of a child born since
	waited map[uint64]bool // pages that threads waited for before all tasks were there; for the goroutine that reads messages

	// gate: an event must be applied before anything else is put into the space, so whoever fills holds it shared, and whoever
	// reads messages holds it alone.
	gate   sync.RWMutex
	closed bool // under gate: fd may be another file by now

	mu    sync.Mutex
	known runs   // what a successor would take for missing: the layout, as events changed it
	left  runs   // what is missing indeed
	next  uint64 // where the pushers go on
}

// outcome is how far a fill came, and what stopped it.
type outcome int

const (
	filled    outcome = iota // all of it is in place
	changing                 // an event waits to be read first; then look the address up again
	gone                     // so is the process
	unmapped                 // the first page after those done is in no registered mapping
	impatient                // the kernel has no memory just now
)

// fill puts pages at an address and returns how many are in place. The caller holds the gate. The kernel copies within one
// mapping only (ENOENT), and a run may span several: mappings that CRIU saw as neighbours, or that mprotect has split since,
// which no event tells. So the piece is halved before a page counts as unmapped. A page that is there (EEXIST) was put there by a
// feeder, this one or one before it, a moment ago: none was there when the feeding began (begin), and nothing else gets there.
func (s *space) fill(address uint64, view []byte) (done uint64, end outcome, err error) {
	size := len(view)
	for len(view) > 0 {
		size = min(size, len(view))
		n, err := s.fd.Copy(address, view[:size], 0)
		done, address, view = done+uint64(n/pageSize), address+uint64(n), view[n:]
		switch {
		case err == nil:
			size *= 2
		case n > 0: // on behind it, to learn what stopped it
		case errors.Is(err, syscall.EEXIST):
			done, address, view = done+1, address+pageSize, view[pageSize:]
		case errors.Is(err, syscall.ENOENT) && size > pageSize, errors.Is(err, syscall.EFAULT) && size > pageSize:
			size = max(pageSize, size/2/pageSize*pageSize)
		case errors.Is(err, syscall.ENOENT):
			return done, unmapped, nil
		case errors.Is(err, syscall.EFAULT) && mapping.Populate(view[:pageSize]) == nil:
			// The page can be read: it is the destination that has a huge page (kernels before 6.8 say it so).
			done, address, view = done+1, address+pageSize, view[pageSize:]
		case errors.Is(err, syscall.EFAULT):
			return done, impatient, fmt.Errorf("%w: its file has become shorter, or its disk fails", ErrStore)
		default:
			end, err := verdict(err)
			return done, end, err
		}
	}
	return done, filled, nil
}

func verdict(err error) (outcome, error) {
	switch {
	case err == nil, errors.Is(err, syscall.EEXIST):
		return filled, nil
	case errors.Is(err, syscall.EAGAIN):
		return changing, nil
	case errors.Is(err, syscall.ESRCH):
		return gone, nil
	case errors.Is(err, syscall.ENOENT):
		return unmapped, nil
	case errors.Is(err, syscall.ENOMEM):
		return impatient, nil
	default:
		return impatient, fmt.Errorf("fill: %w", err)
	}
}

// zeroAhead is how many pages a fault outside of every run fills: it costs the kernel no memory, and a growing heap a tenth of
// the faults.
const zeroAhead = 16

// zero fills from a page on that is in no run, as far as the next run.
func (s *space) zero(address uint64) (outcome, error) {
	s.mu.Lock()
	next, ok := s.left.next(address)
	s.mu.Unlock()
	pages := uint64(zeroAhead)
	if ok {
		pages = min(pages, (next.Start-address)/pageSize)
	}
	n, err := s.fd.Zeropage(address, pages*pageSize, 0)
	if n == 0 && pages > 1 && (errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EINVAL)) {
		n, err = s.fd.Zeropage(address, pageSize, 0)
	}
	if n > 0 {
		return filled, nil
	}
	if errors.Is(err, syscall.EEXIST) {
		err = s.fd.Wake(address, pageSize)
	}
	return verdict(err)
}

// fed takes what is in place out of what is missing, and returns it. The caller holds the gate.
func (s *space) fed(start, end uint64) []Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Run
	s.left, out = s.left.cut(start, end)
	return out
}

// lookup is the missing run at a page. The caller holds the gate.
func (s *space) lookup(address uint64) (Run, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left.at(address)
}

// claim is the next pages to push: where they begin and end. Once the end is reached it begins again with what is missing
// still, which others may be about to push just now.
func (s *space) claim(pages uint64) (start, end uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left.empty() {
		return 0, 0, false
	}
	list := s.left.within(nil, s.next, ^uint64(0), pages)
	if len(list) == 0 {
		s.next = 0
		list = s.left.within(nil, 0, ^uint64(0), pages)
	}
	s.next = list[len(list)-1].End()
	return list[0].Start, s.next, true
}

func (s *space) within(start, end uint64) []Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left.within(nil, start, end, ^uint64(0))
}

func (s *space) complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left.empty()
}

// apply changes the lists as an event changed the address space. changed: a successor has to know. lost is what is needed no
// more. Of Fork the caller makes a space with the same lists.
func (s *space) apply(e *uffd.Event) (changed bool, lost []Run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.Kind {
	case uffd.Fork:
		return true, nil
	case uffd.Remove, uffd.Unmap:
		var known []Run
		s.known, known = s.known.cut(e.Start, e.End)
		s.left, lost = s.left.cut(e.Start, e.End)
		return len(known) > 0, lost
	case uffd.Remap:
		s.known, changed, _ = s.known.move(e.From, e.To, e.Length)
		s.left, _, lost = s.left.move(e.From, e.To, e.Length)
		return changed, lost
	default:
		return false, nil
	}
}

// alive tells whether the process is there. The question changes nothing: no mapping of these is registered for write
// protection.
func (s *space) alive() bool {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.closed || !errors.Is(s.fd.WriteProtect(probeAddress, pageSize, false), syscall.ESRCH)
}

// probeAddress is any that can be asked about.
const probeAddress = 1 << 20
