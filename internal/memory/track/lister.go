package track

import (
	"github.com/livemigrate/migrate/internal/sys/pagemap"
)

// lister lists populated pages by what the kernel has: PAGEMAP_SCAN, or the plain page map.
type lister struct {
	scan      bool
	buffer    []pagemap.Region
	zeroFrame uint64
}

// regions that a scan returns at once: 384 KB.
const regions = 16384

func newLister() *lister {
	l := &lister{scan: pagemap.HaveScan() == nil}
	if l.scan {
		l.buffer = make([]pagemap.Region, regions)
	} else if frame, err := pagemap.ZeroFrame(); err == nil {
		l.zeroFrame = frame
	}
	return l
}

func (l *lister) open(pid int) (*pagemap.Map, error) { return pagemap.Open(pid, l.buffer) }

const populated = pagemap.Present | pagemap.Swapped

// populatedPages selects what CRIU puts into an image (pmc_fill, criu/pagemap-cache.c): what is there, neither of a file
// nor the page of zeros. Areas have no file, so that is not asked: for the answer the kernel would fetch its record of every
// single page, which is four fifths of the time of a scan.
func populatedPages(span area, returned pagemap.Category) pagemap.Query {
	return pagemap.Query{
		Start: span.start, End: span.end,
		Not: pagemap.Zero, Any: populated, Return: returned,
	}
}

// stretches are what to walk. The plain page map has an entry for every page of a gap too, and gaps are terabytes.
func (l *lister) stretches(a *areas) []area {
	if l.scan {
		return a.spans
	}
	return a.mappings
}

// walk calls f for the populated pages of a span, in ascending order.
func (l *lister) walk(m *pagemap.Map, span area, f func(start, end uint64, softDirty bool)) error {
	if l.scan {
		return m.Scan(populatedPages(span, pagemap.SoftDirty), func(found []pagemap.Region) {
			for _, r := range found {
				f(r.Start, r.End, r.Is&pagemap.SoftDirty != 0)
			}
		})
	}
	const pageSize = 4096
	return m.Read(span.start, span.end, func(start uint64, entries []pagemap.Entry) {
		for i, e := range entries {
			there := e&(pagemap.EntryPresent|pagemap.EntrySwapped) != 0 && e&pagemap.EntryFile == 0
			zero := e&pagemap.EntryPresent != 0 && l.zeroFrame != 0 && e.Frame() == l.zeroFrame
			if there && !zero {
				at := start + uint64(i)*pageSize
				f(at, at+pageSize, e&pagemap.EntrySoftDirty != 0)
			}
		}
	})
}
