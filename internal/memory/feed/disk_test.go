package feed

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/livemigrate/migrate/internal/memory"
)

const testChunk = 4 * pageSize

// onDisk is a source of two files, of 10 and of 3 pages, and an empty one between them; the first with digests.
func onDisk(t *testing.T) (*diskSource, []*os.File) {
	t.Helper()
	dir := t.TempDir()
	var files []*os.File
	for i, pages := range []int{10, 0, 3} {
		content := make([]byte, pages*pageSize)
		for k := range content {
			content[k] = byte(k/pageSize + 16*i)
		}
		path := filepath.Join(dir, string(rune('a'+i)))
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files = append(files, f)
	}
	var sums []byte
	for i := range 3 {
		content, err := os.ReadFile(files[0].Name())
		if err != nil {
			t.Fatal(err)
		}
		sum := xxh3.Hash128(content[i*testChunk : min((i+1)*testChunk, len(content))]).Bytes()
		sums = append(sums, sum[:]...)
	}
	s, err := openDisk([]Part{{File: files[0], Slot: 1}, {File: files[1], Slot: 11}, {File: files[2], Slot: 11}}, []int64{testChunk, 0, 0}, sums)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, files
}

func TestDiskIsReadChunkByChunk(t *testing.T) {
	s, _ := onDisk(t)
	if n := s.Has(1, 10); n != 0 {
		t.Errorf("%d pages are there before any was read", n)
	}
	for _, slot := range []uint64{6, 2} { // the second chunk, then the first
		if err := s.Request(t.Context(), slot, true); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ slot, pages, want uint64 }{{1, 10, 8}, {3, 2, 2}, {8, 9, 1}, {9, 1, 0}, {11, 1, 0}} {
		if n := s.Has(test.slot, test.pages); n != test.want {
			t.Errorf("%d of %d pages from slot %d on, not %d", n, test.pages, test.slot, test.want)
		}
	}
	for _, slot := range []uint64{10, 12} {
		if err := s.Request(t.Context(), slot, true); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.Has(11, 9); n != 3 {
		t.Errorf("%d pages of the last file", n)
	}
	view, err := s.View(12, 1)
	if err != nil || !bytes.Equal(view, bytes.Repeat([]byte{33}, pageSize)) {
		t.Errorf("page 1 of the last file is %d..., %v", view[0], err)
	}
	if err := s.check(&Layout{Spaces: []Space{{Pid: 1, Runs: []Run{{Range: memory.Range{Pages: 14}, Slot: 1}}}}}); !errors.Is(err, errNoPage) {
		t.Errorf("a layout with a page too many: %v", err)
	}
}

func TestDiskIsComparedWithItsDigests(t *testing.T) {
	s, files := onDisk(t)
	if _, err := files[0].WriteAt([]byte{99}, 5*pageSize); err != nil {
		t.Fatal(err)
	}
	if err := s.Request(t.Context(), 1, true); err != nil {
		t.Error(err)
	}
	if err := s.Request(t.Context(), 7, true); !errors.Is(err, ErrStore) {
		t.Errorf("an altered chunk: %v", err)
	}
	if n := s.Has(5, 1); n != 0 {
		t.Error("an altered chunk counts as read")
	}
}

func TestLockLastsAsLongAsTheFile(t *testing.T) {
	dir := t.TempDir()
	if err := Await(t.Context(), dir); err != nil {
		t.Error(err)
	}
	lock, err := takeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := takeLock(dir); !errors.Is(err, ErrFeeding) {
		t.Errorf("a second lock: %v", err)
	}
	held, err := duplicate(lock)
	if err != nil {
		t.Fatal(err)
	}
	lock.Close()
	done := make(chan error)
	go func() { done <- Await(t.Context(), dir) }()
	select {
	case err := <-done:
		t.Fatalf("it is held still: %v", err)
	default:
	}
	if _, err := held.WriteAt([]byte(fedMark), 0); err != nil {
		t.Error(err)
	}
	held.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := os.Truncate(filepath.Join(dir, lockName), 0); err != nil {
		t.Error(err)
	}
	if err := Await(t.Context(), dir); !errors.Is(err, ErrLost) {
		t.Errorf("its holders were killed: %v", err)
	}
}
