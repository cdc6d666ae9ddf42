package feed

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/sys/pagemap"
	"github.com/livemigrate/migrate/internal/testutil"
)

// lookers are the eyes that a kernel may allow.
func lookers(t testing.TB) map[string]*eyes {
	t.Helper()
	testutil.Kernel(t, pagemap.HaveScan() == nil, "PAGEMAP_SCAN")
	return map[string]*eyes{"scan": newEyes(), "read": {entries: make([]pagemap.Entry, entriesAtOnce)}}
}

// reserve is memory of this process that has no page yet, as a space all of whose pages but every gap-th are to come.
func reserve(t testing.TB, pages, gap uint64) (area []byte, s *space) {
	t.Helper()
	area, err := syscall.Mmap(-1, 0, int(pages*pageSize), syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(area) })
	if err := syscall.Madvise(area, syscall.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, syscall.EINVAL) {
		t.Fatal(err)
	}
	var list []Run
	start := uint64(uintptr(unsafe.Pointer(&area[0])))
	for n := uint64(1); n < pages; n += gap {
		list = append(list, Run{Range: memory.Range{Start: start + n*pageSize, Pages: min(gap-1, pages-n)}, Slot: n})
	}
	return area, &space{pid: 7, host: os.Getpid(), left: makeRuns(list)}
}

// TestEveryPageThatIsThereIsSeen: at the bounds of runs, in whatever way the kernel is asked.
func TestEveryPageThatIsThereIsSeen(t *testing.T) {
	const gap = 5
	for name, y := range lookers(t) {
		t.Run(name, func(t *testing.T) {
			area, s := reserve(t, 2*entriesAtOnce, gap)
			for n := 0; n < 2*entriesAtOnce; n += gap { // CRIU's
				area[n*pageSize] = 1
			}
			if err := y.verify(s); err != nil {
				t.Fatal(err)
			}
			for i, n := range []int{2*entriesAtOnce - 1, entriesAtOnce + 1, 4, 1} {
				area[n*pageSize] = 1
				at := uint64(uintptr(unsafe.Pointer(&area[n*pageSize])))
				err := y.verify(s)
				if want := fmt.Sprintf("process 7, at %#x: ", at); !errors.Is(err, ErrPresent) || !strings.Contains(err.Error(), want) ||
					!strings.Contains(err.Error(), fmt.Sprintf("(%d pages in all)", i+1)) {
					t.Errorf("%v, want %q and %d pages", err, want, i+1)
				}
			}
			for _, n := range []int{2*entriesAtOnce - 1, entriesAtOnce + 1, 4, 1} {
				s.wait(uint64(uintptr(unsafe.Pointer(&area[n*pageSize]))))
			}
			if err := y.verify(s); err != nil {
				t.Errorf("pages that were waited for: %v", err)
			}
		})
	}
}

// BenchmarkVerify is what a gigabyte costs inside the stop, with a page of CRIU's in every half megabyte.
func BenchmarkVerify(b *testing.B) {
	const gap = 128
	for name, y := range lookers(b) {
		b.Run(name, func(b *testing.B) {
			area, s := reserve(b, 1<<30/pageSize, gap)
			for n := 0; n < len(area); n += gap * pageSize {
				area[n] = 1
			}
			for b.Loop() {
				if err := y.verify(s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
