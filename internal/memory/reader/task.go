package reader

import (
	"errors"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/sys/procmem"
)

// ErrTaskGone: the task has ended (or is a zombie): none of its pages can be read any more.
var ErrTaskGone = procmem.ErrGone

// Filler copies pages of tasks into a buffer that the caller uses again and again. It allocates nothing once warm; one
// goroutine at a time.
type Filler struct {
	call procmem.Call
	got  []memory.Range
	gone []memory.Range
}

// Fill reads ranges of the task, in their order, into buf, which must be large enough for all of them. It returns the ranges that
// it got, whose pages lie in buf one behind the other, and those that are gone: unmapped, or a guard page. Both stay valid until
// the next Fill. A task that has ended is ErrTaskGone.
//
// Areas that the task itself may not read (PROT_NONE) are read through /proc/PID/mem. Where the kernel forbids that
// (proc_mem.force_override), they count as gone: a caller that knows a page to exist must take "gone" for an error.
func (f *Filler) Fill(pid int, buf []byte, ranges []memory.Range) (got, gone []memory.Range, err error) {
	f.got, f.gone = f.got[:0], f.gone[:0]
	var forced *procmem.Forced
	defer func() {
		if forced != nil {
			err = errors.Join(err, forced.Close())
		}
	}()
	at := 0           // bytes of buf that are filled
	skip := uint64(0) // pages of ranges[0] that are dealt with
	for len(ranges) > 0 {
		f.call.Reset()
		want := 0
		for i, r := range ranges {
			if f.call.Len() == procmem.MaxVectors {
				break
			}
			if i == 0 {
				r = memory.Range{Start: r.Start + skip*memory.PageSize, Pages: r.Pages - skip}
			}
			f.call.Add(r.Start, int(r.Bytes()))
			want += int(r.Bytes())
		}
		n, err := f.call.Read(pid, buf[at:at+want])
		if err != nil && !errors.Is(err, procmem.ErrUnreadable) {
			return nil, nil, err
		}
		// The kernel may stop anywhere. A page that it began is read again, whole.
		n -= n % memory.PageSize
		at += n
		ranges, skip = f.advance(ranges, skip, uint64(n/memory.PageSize))
		if n > 0 || len(ranges) == 0 {
			continue
		}
		page := ranges[0].Start + skip*memory.PageSize
		if forced == nil {
			if forced, err = procmem.Force(pid); err != nil {
				return nil, nil, err
			}
		}
		err = forced.Read(page, buf[at:at+memory.PageSize])
		switch {
		case errors.Is(err, procmem.ErrUnreadable):
			f.gone = join(f.gone, memory.Range{Start: page, Pages: 1})
			if skip++; skip == ranges[0].Pages {
				ranges, skip = ranges[1:], 0
			}
		case err != nil:
			return nil, nil, err
		default:
			at += memory.PageSize
			ranges, skip = f.advance(ranges, skip, 1)
		}
	}
	return f.got, f.gone, nil
}

// advance notes that the next pages of the ranges were read, and returns what is left.
func (f *Filler) advance(ranges []memory.Range, skip, pages uint64) ([]memory.Range, uint64) {
	for len(ranges) > 0 {
		r := ranges[0]
		n := min(pages, r.Pages-skip)
		if n > 0 {
			f.got = join(f.got, memory.Range{Start: r.Start + skip*memory.PageSize, Pages: n})
		}
		pages, skip = pages-n, skip+n
		if skip < r.Pages {
			break
		}
		ranges, skip = ranges[1:], 0
	}
	return ranges, skip
}

// join appends a range, to the last one where they touch.
func join(ranges []memory.Range, r memory.Range) []memory.Range {
	if n := len(ranges); n > 0 && ranges[n-1].End() == r.Start {
		ranges[n-1].Pages += r.Pages
		return ranges
	}
	return append(ranges, r)
}
