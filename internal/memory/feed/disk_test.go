package feed

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/xxh3"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/packed"
	"github.com/livemigrate/migrate/internal/sys/hole"
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
	var sums [][16]byte
	for i := range 3 {
		content, err := os.ReadFile(files[0].Name())
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, xxh3.Hash128(content[i*testChunk:min((i+1)*testChunk, len(content))]).Bytes())
	}
	first := Part{File: files[0], Slot: 1, Digests: &Digests{Chunk: testChunk, Sums: sums}}
	s, err := openDisk([]Part{first, {File: files[1], Slot: 11}, {File: files[2], Slot: 11}})
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
	for content, want := range map[string]bool{"": false, string(mark(false)): false, string(mark(true)): true} {
		if err := os.WriteFile(filepath.Join(dir, lockName), []byte(content), 0o600); err != nil {
			t.Error(err)
		}
		if whole, err := Whole(dir); whole != want || err != nil {
			t.Errorf("with %q in the lock: %v, %v", content, whole, err)
		}
		if err := Await(t.Context(), dir); errors.Is(err, ErrLost) != (content == "") {
			t.Errorf("its holders were killed, or not: %q, %v", content, err)
		}
	}
}

// compressedDisk is a source of one compressed file of 12 pages in chunks of four, of which page 5 is in no layout.
func compressedDisk(t *testing.T) (*diskSource, *os.File) {
	t.Helper()
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	x := &packed.Index{Size: 12 * pageSize, Chunk: testChunk}
	var file []byte
	for chunk := range 3 {
		var plain []byte
		for i := range 4 {
			plain = append(plain, bytes.Repeat([]byte{byte(1 + 4*chunk + i)}, pageSize)...)
		}
		frame := encoder.EncodeAll(plain, nil)
		file = append(file, frame...)
		x.Frames, x.Sums = append(x.Frames, int64(len(frame))), append(x.Sums, xxh3.Hash128(frame).Bytes())
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "packed"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(file); err != nil {
		t.Fatal(err)
	}
	// As a feeder gets it from a supervisor.
	p := Part{File: f, Slot: 1, Packed: x}
	digests, err := hole.Memory("digests")
	if err != nil {
		t.Fatal(err)
	}
	defer digests.Close()
	if err := writeDigests(digests, &p); err != nil {
		t.Fatal(err)
	}
	source, err := openSource(&order{Disk: true, Slots: []uint64{1}, Chunks: []int64{testChunk}, Sizes: []int64{x.Size}}, []*os.File{f}, digests, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = source.Close() })
	s := source.(*diskSource)
	run := func(at, pages, slot uint64) Run {
		return Run{Range: memory.Range{Start: at * pageSize, Pages: pages}, Slot: slot}
	}
	if err := s.check(&Layout{Spaces: []Space{{Pid: 1, Runs: []Run{run(100, 4, 1), run(105, 7, 6)}}}}); err != nil {
		t.Fatal(err)
	}
	return s, f
}

func TestCompressedDiskIsUnpackedChunkByChunkAndFreed(t *testing.T) {
	s, _ := compressedDisk(t)
	holds := func(slot uint64, want byte) {
		t.Helper()
		if view, err := s.View(slot, 1); err != nil || !bytes.Equal(view, bytes.Repeat([]byte{want}, pageSize)) {
			t.Errorf("slot %d holds %d..., not %d, %v", slot, view[0], want, err)
		}
	}
	if n := s.Has(1, 12); n != 0 {
		t.Errorf("%d pages are there before any was unpacked", n)
	}
	if err := s.Request(t.Context(), 7, true); err != nil {
		t.Fatal(err)
	}
	if n := s.Has(5, 8); n != 4 {
		t.Errorf("%d pages of the second chunk", n)
	}
	holds(6, 6)
	holds(8, 8)
	holds(5, 0) // nobody wants it
	if err := s.Punch(6, 2); err != nil {
		t.Fatal(err)
	}
	holds(6, 0)
	holds(8, 8)
}

func TestCompressedDiskIsComparedWithItsDigests(t *testing.T) {
	s, f := compressedDisk(t)
	if _, err := f.WriteAt([]byte{99}, s.parts[0].Packed.Frames[0]+5); err != nil {
		t.Fatal(err)
	}
	if err := s.Request(t.Context(), 1, true); err != nil {
		t.Error(err)
	}
	if err := s.Request(t.Context(), 7, true); !errors.Is(err, ErrStore) || !strings.Contains(err.Error(), f.Name()) {
		t.Errorf("an altered chunk: %v", err)
	}
	if err := f.Truncate(s.parts[0].Packed.Stored() - 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Request(t.Context(), 12, true); !errors.Is(err, ErrStore) {
		t.Errorf("a file that was cut: %v", err)
	}
	if n := s.Has(5, 8); n != 0 {
		t.Error("an altered chunk counts as read")
	}
}
