package image

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/livemigrate/migrate/internal/memory"
)

// area is a mapping of a process.
type area struct {
	start, end uint64
	lazy       bool // its pages can be restored later
}

// readAreas reads mm-VPID.img: the mappings, by address.
func readAreas(dir string, vpid int) ([]area, error) {
	name := fmt.Sprintf("mm-%d.img", vpid)
	records, err := readRecords(dir, name, 0x57492820)
	if err != nil {
		return nil, err
	}
	if len(records) != 1 {
		return nil, damaged(name, "%d records", len(records))
	}
	mm, err := parseEntry(records[0])
	if err != nil {
		return nil, damaged(name, "%v", err)
	}
	const vmas = 14 // field of images/mm.proto
	var areas []area
	for _, message := range mm.bytes[vmas] {
		const start, end, flags, status, madv = 1, 2, 6, 7, 9 // fields of images/vma.proto
		vma, err := parseEntry(message)
		if err != nil {
			return nil, damaged(name, "%v", err)
		}
		const wipeOnFork = 1 << 18 // bit of MADV_WIPEONFORK
		lazy := canBeLazy(vma.number(flags), vma.number(status)) && vma.number(madv)&wipeOnFork == 0
		areas = append(areas, area{vma.number(start), vma.number(end), lazy})
	}
	slices.SortFunc(areas, func(a, b area) int { return cmp.Compare(a.start, b.start) })
	return areas, nil
}

// canBeLazy is vma_entry_can_be_lazy of criu/include/vma.h. Memory that a fork wipes is not left for later all the same:
// no event tells a feeder that a child which was born before it was fed has zeros there.
func canBeLazy(flags, status uint64) bool {
	const private, anonymous, locked, huge = 0x2, 0x20, 0x2000, 0x40000 // MAP_* of mmap(2)
	const vsyscall, vdso, vvar = 1 << 2, 1 << 3, 1 << 12                // VMA_AREA_* of criu/include/image.h
	return flags&private != 0 && flags&anonymous != 0 && flags&(locked|huge) == 0 && status&(vsyscall|vdso|vvar) == 0
}

// stackPages are the pages that hold the stack pointers of a process's threads: CRIU's restorer needs them at once.
func stackPages(dir string, t task) ([]uint64, error) {
	pages := map[uint64]bool{}
	for _, id := range append(slices.Clone(t.threads), t.pid) {
		const threadInfo, gpregs, sp = 2, 2, 20 // fields of images/core.proto and core-x86.proto
		name := fmt.Sprintf("core-%d.img", id)
		records, err := readRecords(dir, name, 0x55053847)
		if err != nil {
			return nil, err
		}
		if len(records) == 0 {
			return nil, damaged(name, "no record")
		}
		entry, err := parseEntry(records[0])
		for _, field := range []protowire.Number{threadInfo, gpregs} {
			if err == nil {
				entry, err = entry.child(field)
			}
		}
		if err != nil {
			return nil, damaged(name, "%v", err)
		}
		if len(entry.numbers[sp]) == 0 {
			return nil, damaged(name, "no stack pointer of x86-64")
		}
		pages[entry.number(sp)/memory.PageSize*memory.PageSize] = true
	}
	return slices.Sorted(maps.Keys(pages)), nil
}

// cutter divides runs by what becomes of their pages.
type cutter struct {
	areas  []area
	stacks []uint64
}

// cut calls f for each part of r, in order: lazy ones may stay with the process.
func (c *cutter) cut(r memory.Range, f func(part memory.Range, lazy bool) error) error {
	for at := r.Start; at < r.End(); {
		i := sort.Search(len(c.areas), func(i int) bool { return c.areas[i].end > at })
		if i == len(c.areas) || c.areas[i].start > at {
			return fmt.Errorf("page %#x is in no mapping", at)
		}
		stop, lazy := min(r.End(), c.areas[i].end), c.areas[i].lazy
		if k := sort.Search(len(c.stacks), func(k int) bool { return c.stacks[k] >= at }); lazy && k < len(c.stacks) {
			if c.stacks[k] == at {
				stop, lazy = at+memory.PageSize, false
			} else {
				stop = min(stop, c.stacks[k])
			}
		}
		if err := f(memory.Range{Start: at, Pages: (stop - at) / memory.PageSize}, lazy); err != nil {
			return err
		}
		at = stop
	}
	return nil
}
