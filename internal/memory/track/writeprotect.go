package track

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/sys/pagemap"
	"github.com/livemigrate/migrate/internal/sys/uffd"
)

// writeProtect watches by a userfaultfd of the address space. Its areas are registered with it; a scan of the page map then
// tells which pages are written, and arms them against the next write in the same step, so that none is lost while the
// process runs.
//
// What may be believed of an area is what the kernel says of it now, not what was done to it once: mremap, exec, a mapping
// in the place of another all take the registration away. So what is found unregistered is registered and dirty as a whole.
// A page that is armed was told of when it was armed, for nobody else arms in areas that are registered with us.
type writeProtect struct{ fd uffd.FD }

// look goes through each span in three steps: what is not registered yet; registering it; the scan.
func (w *writeProtect) look(_ *lister, m *pagemap.Map, a *areas, arm bool) (*finding, error) {
	f := &finding{}
	for _, span := range a.spans {
		loose, err := unwatched(m, span)
		if err != nil {
			return nil, err
		}
		var refused []area
		if arm {
			if refused, err = w.register(loose, a); err != nil {
				f.reason = err
			}
		}
		if err := f.scan(m, span, loose, refused, arm); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// unwatched are the parts of a span that no userfaultfd of this kind watches, populated or not.
func unwatched(m *pagemap.Map, span area) (loose []area, err error) {
	err = m.Scan(pagemap.Query{Start: span.start, End: span.end, Not: pagemap.WPAllowed}, func(found []pagemap.Region) {
		for _, r := range found {
			if n := len(loose); n > 0 && loose[n-1].end == r.Start {
				loose[n-1].end = r.End
			} else {
				loose = append(loose, area{r.Start, r.End})
			}
		}
	})
	return loose, err
}

// register registers areas, and returns those parts that cannot be, with the reason of the last.
func (w *writeProtect) register(loose []area, a *areas) (refused []area, reason error) {
	for _, l := range loose {
		if w.registerOne(l) == nil {
			continue
		}
		// One mapping in it spoils the whole: try each.
		for _, part := range a.within(l) {
			if err := w.registerOne(part); err != nil {
				refused, reason = append(refused, part), refusal(err)
			}
		}
	}
	return refused, reason
}

// registerOne registers an area, clean of what an earlier registration left. mremap takes registrations away, also from
// neighbours that it joins with what it moved, and leaves the armed bits; a write to such a page then makes it writable
// and leaves the bit. The scan would take it for armed already, and no write to it would be seen again (Linux 6.18).
func (w *writeProtect) registerOne(l area) error {
	if err := w.fd.Register(l.start, l.end-l.start, uffd.RegisterWP); err != nil {
		return err
	}
	if err := w.fd.WriteProtect(l.start, l.end-l.start, false); err != nil {
		// It changed under our hands. What is not registered is looked at again next time.
		return errors.Join(err, w.fd.Unregister(l.start, l.end-l.start))
	}
	return nil
}

func refusal(err error) error {
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("%w: %w", ErrOwnUserfaultfd, err)
	}
	return fmt.Errorf("%w: %w", ErrRegister, err)
}

// scan lists the populated pages of a span. Those in loose areas are dirty whatever the kernel says: up to Linux 6.12 what
// mremap moves takes its armed bits along.
func (f *finding) scan(m *pagemap.Map, span area, loose, refused []area, arm bool) error {
	add := func(found []pagemap.Region) {
		for _, r := range found {
			f.populated = appendRun(f.populated, r.Start, r.End)
			if r.Is&pagemap.Written != 0 {
				f.dirty = appendRun(f.dirty, r.Start, r.End)
				continue
			}
			for len(loose) > 0 && loose[0].end <= r.Start {
				loose = loose[1:]
			}
			for _, l := range loose {
				if l.start >= r.End {
					break
				}
				f.dirty = appendRun(f.dirty, max(l.start, r.Start), min(l.end, r.End))
			}
		}
	}
	query := populatedPages(span, pagemap.Written)
	for _, r := range refused { // ascending, in the span
		query.End, query.Protect = r.start, arm
		if err := m.Scan(query, add); err != nil {
			return err
		}
		query.Start, query.End, query.Protect = r.start, r.end, false
		if err := m.Scan(query, func(found []pagemap.Region) {
			for _, r := range found {
				f.untracked = appendRun(f.untracked, r.Start, r.End)
			}
			add(found)
		}); err != nil {
			return err
		}
		query.Start = r.end
	}
	query.End, query.Protect = span.end, arm
	return m.Scan(query, add)
}

// within are the mappings in an area, cut to it.
func (a *areas) within(l area) (parts []area) {
	for _, m := range a.mappings {
		if m.start < l.end && l.start < m.end {
			parts = append(parts, area{max(m.start, l.start), min(m.end, l.end)})
		}
	}
	return parts
}

// watches asks the kernel: some of the address space of the page map is registered. The page map was opened just now,
// so that it is that of the process's program of this moment.
func (w *writeProtect) watches(m *pagemap.Map) bool {
	const top = 1<<47 - memory.PageSize
	has, err := m.Has(pagemap.Query{Start: 0, End: top, All: pagemap.WPAllowed})
	return err == nil && has
}

func (w *writeProtect) close() error { return w.fd.Close() }
