package reader

import (
	"errors"
	"fmt"
	"iter"
	"os"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/sys/pagemap"
)

// ownership parts ranges into what a task alone has mapped, and the rest. Its buffers are used again and again.
type ownership struct {
	entries []pagemap.Entry
	ranges  []memory.Range
	own     []bool // by range
}

// lookAhead is how many pages are asked about at a time: ranges that lie no further apart cost one question.
const lookAhead = 256

// ask looks every page up, in the order of the ranges. What changes meanwhile is read the slower way, or makes a copy of a page
// or two: never is it read wrong.
func (o *ownership) ask(pid int, ranges []memory.Range) error {
	o.ranges, o.own = o.ranges[:0], o.own[:0]
	m, err := pagemap.Open(pid, nil)
	if errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%w: process %d", ErrTaskGone, pid)
	}
	if err != nil {
		return err
	}
	defer m.Close()
	if o.entries == nil {
		o.entries = make([]pagemap.Entry, lookAhead)
	}
	var start, end uint64 // what entries tells of
	for i, r := range ranges {
		for page := r.Start; page < r.End(); page += memory.PageSize {
			if page < start || page >= end {
				start, end = page, page+near(ranges[i:], page)*memory.PageSize
				if err := m.ReadEntries(start, o.entries[:(end-start)/memory.PageSize]); err != nil {
					if errors.Is(err, pagemap.ErrNoMemory) {
						err = fmt.Errorf("%w: process %d", ErrTaskGone, pid)
					}
					return err
				}
			}
			o.add(page, o.entries[(page-start)/memory.PageSize].Alone())
		}
	}
	return nil
}

// near is how many pages from one on lie before the end of the last range that is within reach, lookAhead at most.
func near(ranges []memory.Range, page uint64) (pages uint64) {
	reach := page + lookAhead*memory.PageSize
	for _, r := range ranges {
		if r.Start < page && r.End() <= page || r.Start >= reach {
			break
		}
		pages = (min(r.End(), reach) - page) / memory.PageSize
	}
	return pages
}

func (o *ownership) add(page uint64, own bool) {
	if n := len(o.ranges); n > 0 && o.own[n-1] == own && o.ranges[n-1].End() == page {
		o.ranges[n-1].Pages++
		return
	}
	o.ranges, o.own = append(o.ranges, memory.Range{Start: page, Pages: 1}), append(o.own, own)
}

// parts are the ranges in order, as many at a time as are alike.
func (o *ownership) parts() iter.Seq2[[]memory.Range, bool] {
	return func(yield func([]memory.Range, bool) bool) {
		for from := 0; from < len(o.ranges); {
			to := from + 1
			for to < len(o.ranges) && o.own[to] == o.own[from] {
				to++
			}
			if !yield(o.ranges[from:to], o.own[from]) {
				return
			}
			from = to
		}
	}
}
