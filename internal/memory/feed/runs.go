package feed

import (
	"slices"
	"sort"
)

// runs is a sorted list of runs that never changes: what changes it makes a new one, which shares with the old one all but
// the pieces around the change. So a child of a process with a million runs has its list at once.
type runs struct {
	pieces [][]Run // none empty
}

// pieceRuns is how many runs a piece has at most: what is copied for a change, against the length of the list of pieces.
const pieceRuns = 256

// makeRuns takes sorted runs, which the caller leaves alone from now on, and drops those of zeros.
func makeRuns(list []Run) runs {
	list = slices.DeleteFunc(list, func(r Run) bool { return r.Slot == 0 })
	return runs{pieces: split(nil, list)}
}

func split(pieces [][]Run, list []Run) [][]Run {
	for len(list) > 0 {
		n := min(len(list), pieceRuns)
		pieces = append(pieces, list[:n:n])
		list = list[n:]
	}
	return pieces
}

func (l runs) empty() bool { return len(l.pieces) == 0 }

// bounds are where the first run begins, and the last one ends. Not of an empty list.
func (l runs) bounds() (start, end uint64) {
	last := l.pieces[len(l.pieces)-1]
	return l.pieces[0][0].Start, last[len(last)-1].End()
}

// part is the run without what lies outside of [start, end).
func (r Run) part(start, end uint64) Run {
	if start > r.Start {
		skip := (start - r.Start) / pageSize
		r.Start, r.Pages, r.Slot = start, r.Pages-skip, r.Slot+skip
	}
	if end < r.End() {
		r.Pages = (end - r.Start) / pageSize
	}
	return r
}

// from is where the first run lies that ends above address: its piece, and its place there.
func (l runs) from(address uint64) (piece, place int) {
	piece = sort.Search(len(l.pieces), func(i int) bool {
		p := l.pieces[i]
		return p[len(p)-1].End() > address
	})
	if piece < len(l.pieces) {
		p := l.pieces[piece]
		place = sort.Search(len(p), func(i int) bool { return p[i].End() > address })
	}
	return piece, place
}

// at is the run that address lies in, from there on.
func (l runs) at(address uint64) (Run, bool) {
	r, ok := l.next(address)
	if !ok || r.Start > address {
		return Run{}, false
	}
	return r, true
}

// next is the first run, or rest of one, at address or above.
func (l runs) next(address uint64) (Run, bool) {
	piece, place := l.from(address)
	if piece == len(l.pieces) {
		return Run{}, false
	}
	r := l.pieces[piece][place]
	return r.part(max(address, r.Start), r.End()), true
}

// within appends the runs, or parts of them, in [start, end) until they have so many pages.
func (l runs) within(list []Run, start, end, pages uint64) []Run {
	piece, place := l.from(start)
	for ; piece < len(l.pieces); piece, place = piece+1, 0 {
		for _, r := range l.pieces[piece][place:] {
			if r.Start >= end || pages == 0 {
				return list
			}
			r = r.part(max(start, r.Start), min(end, r.End()))
			r.Pages = min(r.Pages, pages)
			pages -= r.Pages
			list = append(list, r)
		}
	}
	return list
}

// cut takes [start, end) out.
func (l runs) cut(start, end uint64) (rest runs, out []Run) {
	if start >= end {
		return l, nil
	}
	first, _ := l.from(start)
	var kept []Run
	last := first
	for ; last < len(l.pieces) && l.pieces[last][0].Start < end; last++ {
		for _, r := range l.pieces[last] {
			if r.End() <= start || r.Start >= end {
				kept = append(kept, r)
				continue
			}
			if r.Start < start {
				kept = append(kept, r.part(r.Start, start))
			}
			out = append(out, r.part(max(start, r.Start), min(end, r.End())))
			if r.End() > end {
				kept = append(kept, r.part(end, r.End()))
			}
		}
	}
	if len(out) == 0 {
		return l, nil
	}
	pieces := append(make([][]Run, 0, len(l.pieces)+1), l.pieces[:first]...)
	return runs{pieces: append(split(pieces, kept), l.pieces[last:]...)}, out
}

// add puts sorted runs in, where there are none.
func (l runs) add(list []Run) runs {
	if len(list) == 0 {
		return l
	}
	// Whatever lies between the first and the last is merged with them.
	between, moved := l.cut(list[0].Start, list[len(list)-1].End())
	list = append(slices.Clone(list), moved...)
	slices.SortFunc(list, func(a, b Run) int {
		if a.Start < b.Start {
			return -1
		}
		return 1
	})
	// No run lies across: the pieces part where the new ones go, except one piece that has runs on both sides.
	at, place := between.from(list[0].Start)
	pieces := append(make([][]Run, 0, len(between.pieces)+2), between.pieces[:at]...)
	if place > 0 {
		pieces = append(pieces, between.pieces[at][:place])
	}
	pieces = split(pieces, list)
	if at < len(between.pieces) {
		pieces = append(pieces, between.pieces[at][place:])
		pieces = append(pieces, between.pieces[at+1:]...)
	}
	return runs{pieces: pieces}
}

// move gives the runs of an area other addresses. What was at those is lost: the kernel has unmapped it.
func (l runs) move(from, to, length uint64) (rest runs, changed bool, lost []Run) {
	rest, moved := l.cut(from, from+length)
	rest, lost = rest.cut(to, to+length)
	for i := range moved {
		moved[i].Start += to - from
	}
	return rest.add(moved), len(moved)+len(lost) > 0, lost
}

// all appends every run.
func (l runs) all(list []Run) []Run {
	for _, p := range l.pieces {
		list = append(list, p...)
	}
	return list
}

func (l runs) pages() uint64 {
	var n uint64
	for _, p := range l.pieces {
		for _, r := range p {
			n += r.Pages
		}
	}
	return n
}
