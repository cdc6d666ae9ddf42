package reader_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/hogtest"
	"github.com/livemigrate/migrate/internal/memory/reader"
	"github.com/livemigrate/migrate/internal/sys/pagemap"
)

func TestMain(m *testing.M) {
	hogtest.Main()
	os.Exit(m.Run())
}

// sub is some pages of r.
func sub(r memory.Range, first, pages uint64) memory.Range {
	return memory.Range{Start: r.Start + first*memory.PageSize, Pages: pages}
}

func TestEveryPageIsReadOnceAndAsItIs(t *testing.T) {
	hog := hogtest.Start(t)
	area := hog.Map(2000)
	hog.Fill(area, hogtest.Random, 1)
	var ranges []memory.Range // more ranges than one call takes vectors, then a long one
	for i := uint64(0); i < 1500; i += 2 {
		ranges = append(ranges, sub(area, i, 1))
	}
	ranges = append(ranges, sub(area, 1500, 500))
	for _, lanes := range []int{1, 3} {
		var mu sync.Mutex
		seen := map[uint64]bool{}
		err := reader.New(&reader.Options{Lanes: lanes, Block: 3 << 20}).Read(t.Context(), hog.Pid, ranges, func(b reader.Block) error {
			mu.Lock()
			defer mu.Unlock()
			if len(b.Gone) > 0 {
				t.Errorf("gone: %v", b.Gone)
			}
			return eachPage(b, func(addr uint64, page []byte) error {
				if seen[addr] {
					return fmt.Errorf("%#x is there twice", addr)
				}
				seen[addr] = true
				return check(page, hogtest.Random, 1, addr)
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(seen) != 1250 {
			t.Errorf("%d lanes: %d pages, not 1250", lanes, len(seen))
		}
	}
}

func TestUnmappedPagesAreGoneAndTheRestIsRead(t *testing.T) {
	hog := hogtest.Start(t)
	area := hog.Map(100)
	hog.Fill(area, hogtest.Random, 2)
	hog.Unmap(sub(area, 10, 5))
	hog.Unmap(sub(area, 50, 1))
	hog.Unmap(sub(area, 99, 1))
	var f reader.Filler
	buf := make([]byte, area.Bytes())
	got, gone, err := f.Fill(hog.Pid, buf, []memory.Range{sub(area, 0, 12), sub(area, 12, 30), sub(area, 45, 55)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]memory.Range{sub(area, 0, 10), sub(area, 15, 27), sub(area, 45, 5), sub(area, 51, 48)}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]memory.Range{sub(area, 10, 5), sub(area, 50, 1), sub(area, 99, 1)}, gone); diff != "" {
		t.Error(diff)
	}
	err = eachPage(reader.Block{Ranges: got, Data: buf}, func(addr uint64, page []byte) error {
		return check(page, hogtest.Random, 2, addr)
	})
	if err != nil {
		t.Error(err)
	}
}

func TestPagesThatTheTaskMayNotReadAreReadAllTheSame(t *testing.T) {
	hog := hogtest.Start(t)
	area := hog.Map(64)
	hog.Fill(area, hogtest.Random, 3)
	hog.Hide(sub(area, 20, 10))
	var f reader.Filler
	buf := make([]byte, area.Bytes())
	got, gone, err := f.Fill(hog.Pid, buf, []memory.Range{area})
	if err != nil || len(gone) > 0 || len(got) != 1 || got[0] != area {
		t.Fatalf("got %v, gone %v, %v", got, gone, err)
	}
	err = eachPage(reader.Block{Ranges: got, Data: buf}, func(addr uint64, page []byte) error {
		return check(page, hogtest.Random, 3, addr)
	})
	if err != nil {
		t.Error(err)
	}
}

// Copies made for the reader would be at the expense of the container's limit.
func TestWhatForkedProcessesShareStaysShared(t *testing.T) {
	hog := hogtest.Start(t)
	area := hog.Map(300)
	hog.Fill(area, hogtest.Random, 4)
	hog.Fork()
	hog.Fill(sub(area, 100, 50), hogtest.Random, 5)
	if n := alone(t, hog.Pid, area); n != 50 {
		t.Fatalf("%d pages are the hog's alone, want 50", n)
	}
	seen := 0
	err := reader.New(&reader.Options{Lanes: 1}).Read(t.Context(), hog.Pid, []memory.Range{sub(area, 10, 2), sub(area, 20, 280)}, func(b reader.Block) error {
		return eachPage(b, func(addr uint64, page []byte) error {
			seen++
			seed := uint64(4)
			if at := (addr - area.Start) / memory.PageSize; at >= 100 && at < 150 {
				seed = 5
			}
			return check(page, hogtest.Random, seed, addr)
		})
	})
	if err != nil || seen != 282 {
		t.Errorf("%d pages, %v", seen, err)
	}
	if n := alone(t, hog.Pid, area); n != 50 {
		t.Errorf("%d pages are the hog's alone when all are read, were 50", n)
	}
}

func alone(t *testing.T, pid int, area memory.Range) (n int) {
	t.Helper()
	m, err := pagemap.Open(pid, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Read(area.Start, area.End(), func(_ uint64, entries []pagemap.Entry) {
		for _, e := range entries {
			if e.Alone() {
				n++
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEndedTaskIsToldFromMissingPages(t *testing.T) {
	hog := hogtest.Start(t)
	area := hog.Map(4)
	hog.Stop()
	err := reader.New(nil).Read(t.Context(), hog.Pid, []memory.Range{area}, func(reader.Block) error { return nil })
	if !errors.Is(err, reader.ErrTaskGone) {
		t.Errorf("got %v", err)
	}
}

func TestErrorOfTheCallbackEndsTheRead(t *testing.T) {
	hog := hogtest.Start(t)
	area := hog.Map(1000)
	stop := errors.New("stop")
	err := reader.New(nil).Read(t.Context(), hog.Pid, []memory.Range{area}, func(reader.Block) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func TestNormalHasEachPageOnce(t *testing.T) {
	for _, c := range []struct{ in, want []memory.Range }{
		{nil, nil},
		{[]memory.Range{pages(4, 2), pages(0, 1), pages(1, 0)}, []memory.Range{pages(0, 1), pages(4, 2)}},
		{[]memory.Range{pages(0, 2), pages(2, 2)}, []memory.Range{pages(0, 4)}},
		{[]memory.Range{pages(0, 9), pages(2, 2), pages(8, 3)}, []memory.Range{pages(0, 11)}},
		{[]memory.Range{pages(1, 1), pages(1, 1)}, []memory.Range{pages(1, 1)}},
	} {
		if got := reader.Normal(c.in); len(got)+len(c.want) > 0 && !cmp.Equal(got, c.want) {
			t.Errorf("got %v, want %v", got, c.want)
		}
	}
}

func pages(first, n uint64) memory.Range {
	return memory.Range{Start: first * memory.PageSize, Pages: n}
}

func TestZeroSeesTheLastByte(t *testing.T) {
	page := make([]byte, memory.PageSize)
	if !reader.Zero(page) {
		t.Error("a page of zeros is not zero")
	}
	for _, i := range []int{0, 1, 63, 64, 2047, memory.PageSize - 1} {
		page[i] = 1
		if reader.Zero(page) {
			t.Errorf("byte %d is not seen", i)
		}
		page[i] = 0
	}
}

func eachPage(b reader.Block, do func(addr uint64, page []byte) error) error {
	at := 0
	for _, r := range b.Ranges {
		for addr := r.Start; addr < r.End(); addr += memory.PageSize {
			if err := do(addr, b.Data[at:at+memory.PageSize]); err != nil {
				return err
			}
			at += memory.PageSize
		}
	}
	return nil
}

func check(page []byte, kind hogtest.Kind, seed, addr uint64) error {
	want := make([]byte, memory.PageSize)
	hogtest.Page(want, kind, seed, addr)
	if !bytes.Equal(page, want) {
		return fmt.Errorf("page %#x is not what was written", addr)
	}
	return nil
}

func BenchmarkReader(b *testing.B) {
	hog := hogtest.Start(b)
	area := hog.Map(64 << 10)
	hog.Fill(area, hogtest.Random, 1)
	for _, lanes := range []int{1, 2} {
		for _, block := range []int{64 << 10, 256 << 10, 1 << 20, 4 << 20} {
			b.Run(fmt.Sprintf("lanes=%d/block=%dK", lanes, block>>10), func(b *testing.B) {
				r := reader.New(&reader.Options{Lanes: lanes, Block: block})
				b.SetBytes(int64(area.Bytes()))
				for b.Loop() {
					if err := r.Read(b.Context(), hog.Pid, []memory.Range{area}, func(reader.Block) error { return nil }); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
