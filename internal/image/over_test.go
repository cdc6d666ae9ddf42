package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/memory"
)

// book is memory by page: what its page holds, over and over.
type book map[uint64]byte

func (b book) ReadAt(buf []byte, at int64) (int, error) {
	for i := 0; i < len(buf); i += memory.PageSize {
		content, ok := b[(uint64(at)+uint64(i))/memory.PageSize]
		if !ok {
			return i, errors.New("no such page")
		}
		copy(buf[i:i+memory.PageSize], page(int(content)))
	}
	return len(buf), nil
}

func (b book) Close() error { return nil }

// ranges of the pages.
func (b book) ranges(list ...uint64) (ranges []memory.Range) {
	for i := 0; i < len(list); i += 2 {
		ranges = append(ranges, memory.Range{Start: list[i] * memory.PageSize, Pages: list[i+1]})
	}
	return ranges
}

// put writes a pre-dump of processes, over another where link is not empty.
func put(t *testing.T, dir, link string, books map[int]book, where map[int][]memory.Range) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WritePreDump(dir, time.Hour, where); err != nil {
		t.Fatal(err)
	}
	open := func(vpid int) (Memory, error) { return books[vpid], nil }
	var err error
	if link == "" {
		err = Fill(dir, open)
	} else {
		err = FillOver(dir, link, open)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// mapOf is the map of a process and its file of pages.
func mapOf(t *testing.T, dir string, vpid int) (string, []byte) {
	t.Helper()
	maps, err := ReadPageMaps(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps {
		if m.VPid == vpid {
			data, err := os.ReadFile(filepath.Join(dir, pagesName(m.PagesID)))
			if err != nil {
				t.Fatal(err)
			}
			return runs(m), data
		}
	}
	t.Fatalf("no map of %d", vpid)
	return "", nil
}

func TestOnlyWhatDiffersIsWrittenOverAParent(t *testing.T) {
	dir := t.TempDir()
	first := book{16: 1, 17: 2, 18: 3, 19: 4, 40: 5}
	put(t, filepath.Join(dir, "1"), "", map[int]book{7: first}, map[int][]memory.Range{7: first.ranges(16, 4, 40, 1)})
	// 17 is another, 18 is new in the second level's eyes again, 19 is gone, 41 is new.
	second := book{16: 1, 17: 9, 18: 3, 40: 5, 41: 6}
	put(t, filepath.Join(dir, "2"), "../1", map[int]book{7: second}, map[int][]memory.Range{7: second.ranges(16, 3, 40, 2)})
	if got, data := mapOf(t, filepath.Join(dir, "2"), 7); got != "16+1:1 17+1:6 18+1:1 40+1:1 41+1:6" || !bytes.Equal(data, page(9, 6)) {
		t.Errorf("second: %s, %d bytes", got, len(data))
	}
	// 17 as in the first, not as in the second; 19 is back; another process is new.
	third, other := book{16: 1, 17: 2, 18: 3, 19: 4, 40: 5, 41: 6}, book{16: 1}
	put(t, filepath.Join(dir, "3"), "../2", map[int]book{7: third, 8: other},
		map[int][]memory.Range{7: third.ranges(16, 4, 40, 2), 8: other.ranges(16, 1)})
	if got, data := mapOf(t, filepath.Join(dir, "3"), 7); got != "16+1:1 17+1:6 18+1:1 19+1:6 40+2:1" || !bytes.Equal(data, page(2, 4)) {
		t.Errorf("third: %s, %d bytes", got, len(data))
	}
	if got, data := mapOf(t, filepath.Join(dir, "3"), 8); got != "16+1:6" || !bytes.Equal(data, page(1)) {
		t.Errorf("other: %s, %d bytes", got, len(data))
	}
	for _, set := range []string{"1", "2", "3"} {
		link, err := parentOf(filepath.Join(dir, set))
		if want := map[string]string{"1": "", "2": "../1", "3": "../2"}[set]; err != nil || link != want {
			t.Errorf("%s: link %q, %v", set, link, err)
		}
	}
}

func TestSetThatSharesNothingStandsAlone(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "1"), "", map[int]book{7: {16: 1}}, map[int][]memory.Range{7: book{}.ranges(16, 1)})
	put(t, filepath.Join(dir, "2"), "../1", map[int]book{7: {16: 2}}, map[int][]memory.Range{7: book{}.ranges(16, 1)})
	if err := CheckResolved(filepath.Join(dir, "2")); err != nil {
		t.Error(err)
	}
}

func TestDamagedParentIsRefused(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "1"), "", map[int]book{7: {16: 1, 17: 2}}, map[int][]memory.Range{7: book{}.ranges(16, 2)})
	if err := os.Truncate(filepath.Join(dir, "1", pagesName(2)), memory.PageSize); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "2"), "", map[int]book{7: {16: 1, 17: 2}}, map[int][]memory.Range{7: book{}.ranges(16, 2)})
	err := FillOver(filepath.Join(dir, "2"), "../1", func(int) (Memory, error) { return book{16: 1, 17: 2}, nil })
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
}
