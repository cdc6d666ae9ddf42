package store

import (
	"bytes"
	"testing"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/sys/hole"
)

// One page far away must not take the memory of all that could lie before it; what comes there later is kept as well.
func TestPageFarAwayTakesNoMemoryForTheWay(t *testing.T) {
	s, err := Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	t.Log("the kernel takes memory by pieces:", s.pieces)
	const far = 4 << 30
	page := func(b byte) []byte { return bytes.Repeat([]byte{b}, memory.PageSize) }
	offsets := []int64{memory.PageSize, far, far / 2, far + memory.PageSize, far + hole.Piece, 2 * memory.PageSize, far + 8*hole.Piece, far + 3*hole.Piece}
	for i, off := range offsets {
		if err := s.writeAt(page(byte(i+1)), off); err != nil {
			t.Fatal(err)
		}
	}
	if used, err := s.Used(); err != nil || used > 64<<20 {
		t.Errorf("%d bytes for %d pages, %v", used, len(offsets), err)
	}
	got := make([]byte, memory.PageSize)
	for i, off := range offsets {
		if err := s.ReadAt(got, uint64(off/memory.PageSize)); err != nil || !bytes.Equal(got, page(byte(i+1))) {
			t.Errorf("the page at %d is not what was written, %v", off, err)
		}
	}
	if err := s.ReadAt(got, far/memory.PageSize-1); err != nil || !bytes.Equal(got, page(0)) {
		t.Errorf("a page that was never written: %v", err)
	}
}
