package reader

import (
	"cmp"
	"slices"

	"github.com/livemigrate/migrate/internal/memory"
)

// Normal brings ranges in the order of their addresses, and joins those that touch or overlap: each page is there once.
// The argument is sorted in place.
func Normal(ranges []memory.Range) []memory.Range {
	slices.SortFunc(ranges, func(a, b memory.Range) int { return cmp.Compare(a.Start, b.Start) })
	out := ranges[:0]
	for _, r := range ranges {
		if r.Pages == 0 {
			continue
		}
		if n := len(out); n > 0 && r.Start <= out[n-1].End() {
			if r.End() > out[n-1].End() {
				out[n-1].Pages = (r.End() - out[n-1].Start) / memory.PageSize
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// Cut takes up to pages pages off the front of ranges: they are appended to batch, what is left is returned. The ranges
// themselves are cut in place.
func Cut(batch, ranges []memory.Range, pages uint64) (cut, left []memory.Range) {
	for len(ranges) > 0 && pages > 0 {
		r := &ranges[0]
		n := min(r.Pages, pages)
		batch = append(batch, memory.Range{Start: r.Start, Pages: n})
		pages -= n
		r.Start += n * memory.PageSize
		if r.Pages -= n; r.Pages == 0 {
			ranges = ranges[1:]
		}
	}
	return batch, ranges
}
