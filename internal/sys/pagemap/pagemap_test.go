package pagemap_test

import (
	"errors"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/sys/pagemap"
	"github.com/livemigrate/migrate/internal/testutil"
)

const page = 4096

// TestScanTellsEachPageOnce: also when there are more regions than the kernel's buffer or ours holds.
func TestScanTellsEachPageOnce(t *testing.T) {
	testutil.Need(t, pagemap.HaveScan() == nil, "PAGEMAP_SCAN")
	const pages = 8192
	area, start := mapped(t, pages)
	for i := 0; i < pages; i += 2 {
		area[i*page] = 1
	}
	if area[page] != 0 { // the page of zeros is mapped by this
		t.Fatal("fresh memory is not zero")
	}
	for _, room := range []int{1, 7, 513, 4096, 10000} {
		m, err := pagemap.Open(os.Getpid(), make([]pagemap.Region, room))
		if err != nil {
			t.Fatal(err)
		}
		var found int
		var last uint64
		if err := m.Scan(pagemap.Query{
			Start: start, End: start + pages*page, Not: pagemap.Zero, Any: pagemap.Present | pagemap.Swapped, Return: pagemap.Present,
		}, func(regions []pagemap.Region) {
			for _, r := range regions {
				if r.Start < last || r.End != r.Start+page || (r.Start-start)/page%2 != 0 || r.Is != pagemap.Present {
					t.Errorf("room for %d: %#x-%#x %#x behind %#x", room, r.Start-start, r.End-start, r.Is, last-start)
				}
				found, last = found+1, r.End
			}
		}); err != nil {
			t.Fatal(err)
		}
		if found != pages/2 {
			t.Errorf("room for %d: %d of %d pages", room, found, pages/2)
		}
		if has, err := m.Has(pagemap.Query{Start: start, End: start + pages*page, Any: pagemap.Present}); !has || err != nil {
			t.Errorf("has: %v, %v", has, err)
		}
		if has, err := m.Has(pagemap.Query{Start: start, End: start + pages*page, All: pagemap.WPAllowed}); has || err != nil {
			t.Errorf("has what nobody watches: %v, %v", has, err)
		}
		m.Close()
	}
}

func TestReadTellsWhatIsThere(t *testing.T) {
	area, start := mapped(t, 4)
	area[0] = 1
	if area[2*page] != 0 {
		t.Fatal("fresh memory is not zero")
	}
	m, err := pagemap.Open(os.Getpid(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var all []pagemap.Entry
	if err := m.Read(start, start+4*page, func(_ uint64, entries []pagemap.Entry) { all = append(all, entries...) }); err != nil {
		t.Fatal(err)
	}
	// What the kernel is just moving about counts as swapped.
	const there = pagemap.EntryPresent | pagemap.EntrySwapped
	if len(all) != 4 || all[0]&there == 0 || all[1]&there != 0 || all[2]&there == 0 || all[3]&there != 0 || all[0]&pagemap.EntryFile != 0 {
		t.Fatalf("%#x", all)
	}
	zero, err := pagemap.ZeroFrame()
	if err != nil {
		t.Fatal(err)
	}
	testutil.Need(t, zero != 0, "the right to see frame numbers: CAP_SYS_ADMIN")
	if all[2].Frame() != zero || all[0].Frame() == zero {
		t.Errorf("%#x, zero %#x", all, zero)
	}
}

func TestNoProcess(t *testing.T) {
	if _, err := pagemap.Open(1<<22, nil); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("open: %v", err)
	}
	if err := pagemap.ClearSoftDirty(1 << 22); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("clear: %v", err)
	}
}

// mapped is fresh memory outside Go's heap.
func mapped(t *testing.T, pages int) (area []byte, start uint64) {
	t.Helper()
	area, err := unix.Mmap(-1, 0, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(area) })
	if err := unix.Madvise(area, unix.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
		t.Fatal(err)
	}
	return area, uint64(uintptr(unsafe.Pointer(&area[0])))
}
