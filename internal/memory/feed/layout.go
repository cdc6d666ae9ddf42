package feed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/xxh3"

	"github.com/livemigrate/migrate/internal/memory"
)

// LayoutName is the layout's file in an image directory.
const LayoutName = "memory.layout"

// ErrLayout: the bytes are no layout, or not the one that was written.
var ErrLayout = errors.New("damaged memory layout")

// Layout says where in the store the pages of every process are that CRIU leaves to us.
type Layout struct {
	Spaces []Space // by Pid, ascending
}

// Space is one process: one address space.
type Space struct {
	Pid  int   // as CRIU's images call it: in the innermost pid namespace
	Runs []Run // by address, not overlapping; whatever is in none of them is zero
}

// Run is neighbouring pages whose slots are neighbours too. Slot 0 is the zero page: all pages of the run are zero.
type Run struct {
	memory.Range
	Slot uint64 // of the first page: at byte Slot*memory.PageSize of the store
}

// The file, docs/image-format.md: integers are LEB128 in their shortest form, signed ones zigzag, and those of a run count from
// where the run before it led one to expect them.
//
//	"MIGLAYv1" | spaces | { pid | runs | { gap: pages since the end of the run before | pages | slot - expected } } | xxh3-128
const (
	layoutMagic  = "MIGLAYv1"
	layoutDigest = 16

	maxPid   = 1 << 22 // PID_MAX_LIMIT of linux/threads.h
	maxPages = 1 << 44 // 56 bits of addresses, what five levels of page tables give to a process
	maxSlots = 1 << 40
)

// Encode writes the layout. ErrLayout when it is none: processes or runs out of order, overlapping, or beyond any memory.
func (l *Layout) Encode() ([]byte, error) {
	b := binary.AppendUvarint([]byte(layoutMagic), uint64(len(l.Spaces)))
	last := 0
	for _, s := range l.Spaces {
		if s.Pid <= last || s.Pid > maxPid {
			return nil, fmt.Errorf("%w: process %d after %d", ErrLayout, s.Pid, last)
		}
		last = s.Pid
		b = binary.AppendUvarint(b, uint64(s.Pid))
		b = binary.AppendUvarint(b, uint64(len(s.Runs)))
		var at, slot uint64
		for _, r := range s.Runs {
			page := r.Start / memory.PageSize
			if r.Start%memory.PageSize != 0 || page < at || !r.valid() {
				return nil, fmt.Errorf("%w: process %d, %d pages at %#x, slot %d", ErrLayout, s.Pid, r.Pages, r.Start, r.Slot)
			}
			b = binary.AppendUvarint(b, page-at)
			b = binary.AppendUvarint(b, r.Pages)
			b = binary.AppendVarint(b, int64(r.Slot-slot))
			at, slot = page+r.Pages, r.next(slot)
		}
	}
	digest := xxh3.Hash128(b).Bytes()
	return append(b, digest[:]...), nil
}

func (r *Run) valid() bool {
	page := r.Start / memory.PageSize
	return r.Pages > 0 && page < maxPages && r.Pages <= maxPages-page && r.Slot < maxSlots && r.Pages <= maxSlots-r.Slot
}

// next is the slot that the following run is expected at.
func (r *Run) next(expected uint64) uint64 {
	if r.Slot == 0 {
		return expected
	}
	return r.Slot + r.Pages
}

// Pages is how many pages are to be fed: zero pages are not.
func (l *Layout) Pages() uint64 {
	var n uint64
	for _, s := range l.Spaces {
		for _, r := range s.Runs {
			if r.Slot != 0 {
				n += r.Pages
			}
		}
	}
	return n
}

// Slots is one more than the highest slot named.
func (l *Layout) Slots() uint64 {
	n := uint64(1)
	for _, s := range l.Spaces {
		for _, r := range s.Runs {
			if r.Slot != 0 {
				n = max(n, r.Slot+r.Pages)
			}
		}
	}
	return n
}

// DecodeLayout reads what Encode wrote, and nothing else.
func DecodeLayout(b []byte) (*Layout, error) {
	if len(b) < len(layoutMagic)+layoutDigest || string(b[:len(layoutMagic)]) != layoutMagic {
		return nil, fmt.Errorf("%w: not a layout of this version", ErrLayout)
	}
	body, digest := b[:len(b)-layoutDigest], b[len(b)-layoutDigest:]
	if want := xxh3.Hash128(body).Bytes(); !bytes.Equal(want[:], digest) {
		return nil, fmt.Errorf("%w: its digest is another", ErrLayout)
	}
	d := &layoutDecoder{rest: body[len(layoutMagic):]}
	l := &Layout{}
	count := d.count(2)
	for range count {
		s := Space{Pid: int(d.number(maxPid))}
		if len(l.Spaces) > 0 && s.Pid <= l.Spaces[len(l.Spaces)-1].Pid || s.Pid == 0 {
			return nil, fmt.Errorf("%w: processes out of order", ErrLayout)
		}
		runs := d.count(3)
		s.Runs = make([]Run, 0, runs)
		var at, slot uint64
		for range runs {
			r := d.run(at, slot)
			if d.failed {
				break
			}
			at, slot = r.Start/memory.PageSize+r.Pages, r.next(slot)
			s.Runs = append(s.Runs, r)
		}
		if d.failed {
			break
		}
		l.Spaces = append(l.Spaces, s)
	}
	if d.failed || len(d.rest) > 0 {
		return nil, fmt.Errorf("%w: not what its numbers say", ErrLayout)
	}
	return l, nil
}

type layoutDecoder struct {
	rest   []byte
	failed bool
}

// count is how many things of at least so many bytes follow.
func (d *layoutDecoder) count(size int) uint64 {
	return d.number(uint64(len(d.rest) / size))
}

func (d *layoutDecoder) number(limit uint64) uint64 {
	v, n := binary.Uvarint(d.rest)
	if !d.took(n) || v > limit {
		d.failed = true
		return 0
	}
	return v
}

// took moves on behind a number of n bytes: none that could have been shorter.
func (d *layoutDecoder) took(n int) bool {
	if n <= 0 || d.failed || n > 1 && d.rest[n-1] == 0 {
		d.failed = true
		return false
	}
	d.rest = d.rest[n:]
	return true
}

func (d *layoutDecoder) run(at, expected uint64) Run {
	page := at + d.number(maxPages)
	r := Run{Range: memory.Range{Start: page * memory.PageSize, Pages: d.number(maxPages)}}
	delta, n := binary.Varint(d.rest)
	if !d.took(n) {
		return r
	}
	r.Slot = expected + uint64(delta)
	d.failed = d.failed || page >= maxPages || !r.valid()
	return r
}

// maxLayout bounds the file: that of a terabyte whose every page stands alone is smaller.
const maxLayout = 4 << 30

// ReadLayout decodes a whole file.
func ReadLayout(f io.ReaderAt, size int64) (*Layout, error) {
	if size > maxLayout {
		return nil, fmt.Errorf("%w: %d bytes are too many", ErrLayout, size)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("read memory layout: %w", err)
	}
	return DecodeLayout(b)
}
