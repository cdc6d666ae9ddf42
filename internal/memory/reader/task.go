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
	call  procmem.Call
	owned ownership
	got   []memory.Range
	gone  []memory.Range
}

// Fill reads ranges of the task, in their order, into buf, which must be large enough for all of them. It returns the ranges that
// it got, whose pages lie in buf one behind the other, and those that are gone: unmapped, or a guard page. Both stay valid until
// the next Fill. A task that has ended is ErrTaskGone.
//
// Areas that the task itself may not read (PROT_NONE) are read through /proc/PID/mem. Where the kernel forbids that
// (proc_mem.force_override), they count as gone: a caller that knows a page to exist must take "gone" for an error.
//
// So are pages that the task has in common with another since a fork. process_vm_readv pins what it reads, and for that the
// kernel, since Linux 5.19, gives the task a copy of its own: what a container's processes share would be there once for each,
// at the expense of the container's limit.
func (f *Filler) Fill(pid int, buf []byte, ranges []memory.Range) (got, gone []memory.Range, err error) {
	f.got, f.gone = f.got[:0], f.gone[:0]
	if err := f.owned.ask(pid, ranges); err != nil {
		return nil, nil, err
	}
	s := filling{Filler: f, pid: pid, buf: buf}
	defer func() {
		if s.forced != nil {
			err = errors.Join(err, s.forced.Close())
		}
	}()
	for part, own := range f.owned.parts() {
		if own {
			err = s.vectors(part)
		} else {
			err = s.force(part)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return f.got, f.gone, nil
}

// filling is a Fill under way.
type filling struct {
	*Filler
	pid    int
	buf    []byte // what is left of it
	forced *procmem.Forced
}

// vectors reads pages that are the task's alone.
func (s *filling) vectors(ranges []memory.Range) error {
	skip := uint64(0) // pages of ranges[0] that are dealt with
	for len(ranges) > 0 {
		s.call.Reset()
		want := 0
		for i, r := range ranges {
			if s.call.Len() == procmem.MaxVectors {
				break
			}
			if i == 0 {
				r = memory.Range{Start: r.Start + skip*memory.PageSize, Pages: r.Pages - skip}
			}
			s.call.Add(r.Start, int(r.Bytes()))
			want += int(r.Bytes())
		}
		n, err := s.call.Read(s.pid, s.buf[:want])
		if err != nil && !errors.Is(err, procmem.ErrUnreadable) {
			return err
		}
		// The kernel may stop anywhere. A page that it began is read again, whole.
		n -= n % memory.PageSize
		s.buf = s.buf[n:]
		ranges, skip = s.advance(ranges, skip, uint64(n/memory.PageSize))
		if n > 0 || len(ranges) == 0 {
			continue
		}
		if err := s.forcePage(ranges[0].Start + skip*memory.PageSize); err != nil {
			return err
		}
		if skip++; skip == ranges[0].Pages {
			ranges, skip = ranges[1:], 0
		}
	}
	return nil
}

// force reads pages that others may have too, or that are not there.
func (s *filling) force(ranges []memory.Range) error {
	if err := s.openForced(); err != nil {
		return err
	}
	for _, r := range ranges {
		err := s.forced.Read(r.Start, s.buf[:r.Bytes()])
		if err == nil {
			s.got, s.buf = join(s.got, r), s.buf[r.Bytes():]
			continue
		}
		if !errors.Is(err, procmem.ErrUnreadable) {
			return err
		}
		for page := r.Start; page < r.End(); page += memory.PageSize { // which of them?
			if err := s.forcePage(page); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *filling) openForced() (err error) {
	if s.forced == nil {
		s.forced, err = procmem.Force(s.pid)
	}
	return err
}

func (s *filling) forcePage(page uint64) error {
	if err := s.openForced(); err != nil {
		return err
	}
	one := memory.Range{Start: page, Pages: 1}
	err := s.forced.Read(page, s.buf[:memory.PageSize])
	switch {
	case errors.Is(err, procmem.ErrUnreadable):
		s.gone = join(s.gone, one)
	case err != nil:
		return err
	default:
		s.got, s.buf = join(s.got, one), s.buf[memory.PageSize:]
	}
	return nil
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
