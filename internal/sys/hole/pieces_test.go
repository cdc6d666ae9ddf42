package hole_test

import (
	"bytes"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/hole"
)

// What is appended by pieces is read again, takes no more memory than it has bytes, and a piece that is punched is given back, whether
// this kernel takes memory by pieces or not.
func TestPiecesAreWrittenReadAndPunched(t *testing.T) {
	file, whole, err := hole.Pieces("test")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	t.Log("the kernel takes memory by pieces:", whole)
	used := func() uint64 {
		n, err := hole.Allocated(file)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := used(); n != 0 {
		t.Errorf("a new file has %d bytes", n)
	}
	const n = 12 // more than a huge page
	for i := range int64(n) {
		if _, err := file.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, hole.Piece), i*hole.Piece); err != nil {
			t.Fatal(err)
		}
	}
	if got := used(); got != n*hole.Piece {
		t.Errorf("%d bytes for %d", got, n*hole.Piece)
	}
	if err := hole.Punch(file, 3*hole.Piece, hole.Piece); err != nil {
		t.Fatal(err)
	}
	if got := used(); got != (n-1)*hole.Piece {
		t.Errorf("%d bytes with one of %d pieces punched", got, n)
	}
	got := make([]byte, hole.Piece)
	for i := range int64(n) {
		want := byte(i + 1)
		if i == 3 {
			want = 0
		}
		if _, err := file.ReadAt(got, i*hole.Piece); err != nil || bytes.Count(got, []byte{want}) != len(got) {
			t.Errorf("piece %d is not as it was written: %v", i, err)
		}
	}
}
