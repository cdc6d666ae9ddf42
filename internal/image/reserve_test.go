package image

import (
	"os"
	"path/filepath"
	"testing"
)

// Of large areas those that nobody may write to are marked; all else in the image stays as it is, byte for byte.
func TestAddressesThatAreSetAsideAreMarked(t *testing.T) {
	const tera = 1 << 40
	vma := func(from, to, prot, flags int) []byte {
		return record(1, from, 2, to, 3, 0, 5, prot, 6, flags, 7, 1, 8, 1)
	}
	mm := func(setAside int) []byte {
		return record(1, 5, 14, vma(4096, 8192, 0, 0x22), 14, vma(tera, 9*tera, 0, setAside), 14, vma(9*tera, 10*tera, 3, 0x22),
			14, vma(10*tera, 11*tera, 0, 0x2), 15, []byte("more"))
	}
	dir, want := t.TempDir(), t.TempDir()
	writeImage(t, dir, "mm-7.img", 0x57492820, mm(0x22))
	writeImage(t, dir, "mm-8.img", 0x57492820, mm(0x4022))
	writeImage(t, want, "mm-7.img", 0x57492820, mm(0x4022))
	if err := looseReserves(dir); err != nil {
		t.Fatal(err)
	}
	wanted, err := os.ReadFile(filepath.Join(want, "mm-7.img"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mm-7.img", "mm-8.img"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != string(wanted) {
			t.Errorf("%s: %x, %v; want %x", name, got, err, wanted)
		}
	}
	writeImage(t, dir, "mm-7.img", 0x57492820, []byte{14<<3 | 2, 100, 1})
	if err := looseReserves(dir); err == nil {
		t.Error("a cut image is accepted")
	}
}
