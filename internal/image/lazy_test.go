package image

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/memory"
)

const lazyPage = memory.PageSize

// saved is a dump of one process as CRIU writes it: anonymous memory from page 16 to 32 with the stack pointer in 20, a
// private file from 32 to 36, memory that no child gets from 40 to 44, and more from 64 on.
func saved(t *testing.T, dir string, file []byte, entries ...[]byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeImage(t, dir, "pstree.img", 0x50273030, record(1, 7, 2, 0, 3, 7, 4, 7, 5, 7), record(1, 9, 2, 7, 3, 7, 4, 7, 5, 0))
	writeImage(t, dir, "core-7.img", 0x55053847, record(2, record(2, record(20, 20*lazyPage+8))))
	writeImage(t, dir, "core-9.img", 0x55053847, record(1, 1)) // a zombie: it has no memory
	vma := func(from, to, flags, advice int) []byte {
		return record(1, from*lazyPage, 2, to*lazyPage, 6, flags, 7, 1, 9, advice)
	}
	writeImage(t, dir, "mm-7.img", 0x57492820, record(
		14, vma(16, 32, 0x22, 0), 14, vma(32, 36, 0x2, 0), 14, vma(40, 44, 0x22, 1<<18), 14, vma(64, 1<<12, 0x22, 0)))
	writeImage(t, dir, "pagemap-7.img", pageMapMagic, append([][]byte{record(1, 1)}, entries...)...)
	if err := os.WriteFile(filepath.Join(dir, "pages-1.img"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	inventory := append([]byte{0x16, 0x31, 0x31, 0x58}, appendRecord(nil, record(1, imgVersion))...)
	if err := os.WriteFile(filepath.Join(dir, "inventory.img"), inventory, 0o600); err != nil {
		t.Fatal(err)
	}
}

func mapEntry(at, count, flags int) []byte {
	return record(1, at*lazyPage, 2, count, 4, flags, 5, count)
}

func lazyRun(at, pages, slot uint64) LazyRun {
	return LazyRun{memory.Range{Start: at * lazyPage, Pages: pages}, slot}
}

func openLazy(t *testing.T, dir string) *Lazy {
	t.Helper()
	set, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := set.Lazy()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// What CRIU flags itself needs no other maps.
func TestStockImagesAreLazyAsTheyAre(t *testing.T) {
	dir := t.TempDir()
	saved(t, dir, page(1, 2, 3, 4, 5), mapEntry(16, 2, 6), mapEntry(20, 1, 4), mapEntry(24, 1, 6), mapEntry(33, 1, 4))
	l := openLazy(t, dir)
	want := []LazySpace{{VPid: 7, Runs: []LazyRun{lazyRun(16, 2, 1), lazyRun(24, 1, 4)}}}
	if !reflect.DeepEqual(l.Spaces, want) || l.NeedsStage() {
		t.Errorf("%+v, staged: %v", l.Spaces, l.NeedsStage())
	}
	if len(l.Files) != 1 || l.Files[0].First != 1 || l.Files[0].Pages != 5 || l.Files[0].Path != filepath.Join(dir, "pages-1.img") {
		t.Errorf("%+v", l.Files)
	}
}

// A feeder would give a child what is to be empty there.
func TestMemoryThatIsWipedOnForkIsNotLazy(t *testing.T) {
	dir := t.TempDir()
	saved(t, dir, page(1, 2, 3), mapEntry(16, 1, 6), mapEntry(41, 2, 6))
	l := openLazy(t, dir)
	if want := []LazySpace{{VPid: 7, Runs: []LazyRun{lazyRun(16, 1, 1)}}}; !reflect.DeepEqual(l.Spaces, want) || !l.NeedsStage() {
		t.Errorf("%+v, staged: %v", l.Spaces, l.NeedsStage())
	}
	want := []PageRun{
		{memory.Range{Start: 16 * lazyPage, Pages: 1}, PageLazy | PagePresent},
		{memory.Range{Start: 41 * lazyPage, Pages: 2}, PagePresent},
	}
	if len(l.maps) != 1 || !reflect.DeepEqual(l.maps[0].Runs, want) {
		t.Errorf("%+v", l.maps)
	}
}

// CRIU would read a parent's pages at once, and those that are flagged for no lazy restore.
func TestPagesOfParentsAreLazyToo(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "2")
	saved(t, filepath.Join(root, "0"), page(1, 2, 3), mapEntry(16, 2, 6), mapEntry(20, 1, 4))
	saved(t, filepath.Join(root, "1"), page(4, 5), mapEntry(16, 1, 1), mapEntry(17, 1, 6), mapEntry(20, 1, 1), mapEntry(34, 1, 4))
	saved(t, dir, page(6, 7), mapEntry(16, 2, 1), mapEntry(20, 1, 1), mapEntry(25, 1, 4), mapEntry(33, 1, 4), mapEntry(34, 1, 1))
	for _, name := range []string{"1", "2"} {
		if err := os.Symlink(filepath.Join("..", string(name[0]-1)), filepath.Join(root, name, parentName)); err != nil {
			t.Fatal(err)
		}
	}
	l := openLazy(t, dir)
	// Slots: 1 and 2 are of the set, 3 and 4 of its parent, 5 to 7 of that one's.
	want := []LazySpace{{VPid: 7, Runs: []LazyRun{lazyRun(16, 1, 5), lazyRun(17, 1, 3), lazyRun(25, 1, 1)}}}
	if !reflect.DeepEqual(l.Spaces, want) || !l.NeedsStage() {
		t.Errorf("%+v, staged: %v", l.Spaces, l.NeedsStage())
	}
	staged := filepath.Join(root, "staged")
	if err := l.Stage(staged); err != nil {
		t.Fatal(err)
	}
	maps, err := ReadPageMaps(staged)
	if err != nil {
		t.Fatal(err)
	}
	run := func(at, pages uint64, flags PageFlags) PageRun {
		return PageRun{memory.Range{Start: at * lazyPage, Pages: pages}, flags}
	}
	wantRuns := []PageRun{run(16, 2, 2), run(20, 1, 1), run(25, 1, 6), run(33, 1, 4), run(34, 1, 1)}
	if len(maps) != 1 || !reflect.DeepEqual(maps[0].Runs, wantRuns) {
		t.Errorf("%+v", maps)
	}
	if _, err := Open(staged); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"pages-1.img", "mm-7.img", "parent/pages-1.img"} {
		if _, err := os.Stat(filepath.Join(staged, name)); err != nil {
			t.Error(err)
		}
	}
	if m, err := readPageMap(dir, "pagemap-7.img"); err != nil || m.Runs[0].Flags != PageParent {
		t.Errorf("the set itself was altered: %+v, %v", m, err)
	}
}

func TestLazyMemoryMustBeSomewhere(t *testing.T) {
	dir := t.TempDir()
	saved(t, dir, page(1), mapEntry(16, 2, 2), mapEntry(20, 1, 4))
	set, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := set.Lazy(); !errors.Is(err, ErrElsewhere) {
		t.Errorf("%v", err)
	}
}

// The stack's page is compared before the restore, the others when they are fed.
func TestOnlyWhatCRIUReadsIsVerifiedAhead(t *testing.T) {
	dir := t.TempDir()
	const chunk = ChunkSize / memory.PageSize
	content := make([]byte, (2*chunk+1)*memory.PageSize)
	saved(t, dir, content, mapEntry(20, 1, 4), mapEntry(21, 8, 6), mapEntry(64, 2*chunk-8, 6))
	if err := Write(t.Context(), dir, Origin{Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		at   int64
		well bool
	}{{ChunkSize + 5, true}, {5, false}} {
		content[test.at]++
		if err := os.WriteFile(filepath.Join(dir, "pages-1.img"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		l := openLazy(t, dir)
		if l.Files[0].Known == nil {
			t.Fatal("the file's digests are not known")
		}
		if err := l.VerifyEager(t.Context()); (err == nil) != test.well || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d differs: %v", test.at, err)
		}
	}
}
