package feed

import (
	"fmt"
	"math/bits"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/sys/futex"
	"github.com/livemigrate/migrate/internal/sys/mapping"
)

// arrivals is what supervisor and feeders share about pages that come when the processes run already: a file that both map.
//
//	0         arrivalsHead
//	pageSize  a bit for each owed slot: it is in the store, or nobody needs it
type arrivals struct {
	head *arrivalsHead
	bits []uint64

	raw, rawBits []byte
}

// arrivalsHead: the range is written before a feeder has the layout, and never changes after that.
type arrivalsHead struct {
	slot, pages uint64
	missing     uint64 // bits that are not set
	came        uint32 // goes up when bits were set: whoever waits for pages waits for that
}

// openArrivals maps the file. With pages it is made for so many from slot on, all of them there: see need.
func openArrivals(f *os.File, slot, pages uint64) (*arrivals, error) {
	if pages > 0 {
		if err := f.Truncate(pageSize + arrivalsSize(pages)); err != nil {
			return nil, fmt.Errorf("make list of arrivals: %w", err)
		}
	}
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return nil, err
	}
	a := &arrivals{}
	if a.raw, err = mapping.Shared(f, 0, pageSize, true); err != nil {
		return nil, err
	}
	a.head = (*arrivalsHead)(unsafe.Pointer(&a.raw[0]))
	if pages > 0 {
		a.head.slot, a.head.pages = slot, pages
	}
	if a.rawBits, err = mapping.Shared(f, pageSize, arrivalsSize(a.head.pages), true); err != nil {
		return nil, err
	}
	a.bits = unsafe.Slice((*uint64)(unsafe.Pointer(&a.rawBits[0])), len(a.rawBits)/8)
	if pages > 0 {
		for i := range a.bits {
			a.bits[i] = 1<<64 - 1
		}
	}
	return a, nil
}

func arrivalsSize(pages uint64) int64 {
	return int64((pages + 8*pageSize - 1) / (8 * pageSize) * pageSize)
}

// need says which of the pages have to come: those that the layout names.
func (a *arrivals) need(l *Layout) {
	for _, space := range l.Spaces {
		for _, r := range space.Runs {
			first, last := max(r.Slot, a.head.slot), min(r.Slot+r.Pages, a.head.slot+a.head.pages)
			for slot := first; slot < last; slot++ {
				i := slot - a.head.slot
				if bit := uint64(1) << (i % 64); a.bits[i/64]&bit != 0 {
					a.bits[i/64] &^= bit
					a.head.missing++
				}
			}
		}
	}
}

// set notes that pages are in the store, and returns how many are still missing. It wakes nobody.
func (a *arrivals) set(slot, pages uint64) (missing uint64) {
	first, last := max(slot, a.head.slot), min(slot+pages, a.head.slot+a.head.pages)
	var fresh uint64
	for s := first; s < last; {
		i := s - a.head.slot
		n := min(64-i%64, last-s)
		mask := (uint64(1)<<n - 1) << (i % 64)
		if n == 64 {
			mask = 1<<64 - 1
		}
		old := atomic.OrUint64(&a.bits[i/64], mask)
		fresh += uint64(bits.OnesCount64(mask &^ old))
		s += n
	}
	return atomic.AddUint64(&a.head.missing, -fresh)
}

// wake makes those look again that wait for pages.
func (a *arrivals) wake() error {
	atomic.AddUint32(&a.head.came, 1)
	return futex.Wake(&a.head.came)
}

// has is how many of the pages from slot on are there, one behind the other.
func (a *arrivals) has(slot, pages uint64) uint64 {
	var n uint64
	for n < pages {
		s := slot + n
		if s < a.head.slot {
			n = min(pages, a.head.slot-slot)
			continue
		}
		i := s - a.head.slot
		if i >= a.head.pages {
			return pages
		}
		word := atomic.LoadUint64(&a.bits[i/64]) >> (i % 64)
		ones := uint64(bits.TrailingZeros64(^word))
		n += min(ones, 64-i%64)
		if ones < 64-i%64 {
			break
		}
	}
	return min(n, pages)
}

func (a *arrivals) missing() uint64 { return atomic.LoadUint64(&a.head.missing) }

// held are so many bits from slot on, in bytes. The last byte may have more.
func (a *arrivals) held(slot uint64, size int) []byte {
	var out []byte
	for i := slot - a.head.slot; i < a.head.pages && len(out) < size; i += 8 {
		out = append(out, byte(atomic.LoadUint64(&a.bits[i/64])>>(i%64)))
	}
	return out
}

func (a *arrivals) close() error {
	if err := mapping.Unmap(a.raw); err != nil {
		return err
	}
	return mapping.Unmap(a.rawBits)
}

// Owed are pages of the store that come when the processes run already: a range of slots, none of which was ever used before.
type Owed struct {
	Slot, Pages uint64
}

func (o Owed) end() int64 { return int64((o.Slot + o.Pages) * memory.PageSize) }
