package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/memory"
)

// compressed makes a set's manifest, and its page files compressed.
func compressed(t *testing.T, dir string) {
	t.Helper()
	if err := Write(t.Context(), dir, Origin{Created: time.Unix(1, 0), Compress: true}); err != nil {
		t.Fatal(err)
	}
	if isThere(dir, "pages-1.img") || !isThere(dir, "pages-1.img.zst") {
		t.Fatal("the page file is not compressed")
	}
}

// linked is three sets, each over the one before, of which the first and the last are compressed.
func linked(t *testing.T) string {
	t.Helper()
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
	compressed(t, filepath.Join(root, "0"))
	manifest(t, filepath.Join(root, "1"))
	compressed(t, dir)
	return dir
}

func TestUnpackedSetIsWholeAndHasNoParent(t *testing.T) {
	set, err := Open(linked(t))
	if err != nil {
		t.Fatal(err)
	}
	if !set.Packed() {
		t.Error("it does not count as compressed")
	}
	run := func(at, pages uint64, flags PageFlags) PageRun {
		return PageRun{memory.Range{Start: at * lazyPage, Pages: pages}, flags}
	}
	for _, test := range []struct {
		name  string
		lazy  bool
		runs  []PageRun
		pages []byte
	}{
		{"whole", false, []PageRun{run(16, 2, 4), run(20, 1, 4), run(25, 1, 4), run(33, 2, 4)}, page(1, 4, 3, 6, 7, 5)},
		{"lazy", true, []PageRun{run(16, 2, 2), run(20, 1, 4), run(25, 1, 2), run(33, 2, 4)}, page(3, 7, 5)},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan, err := set.Unpack(test.lazy)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := plan.Write(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			maps, err := ReadPageMaps(dir)
			if err != nil || len(maps) != 1 || !reflect.DeepEqual(maps[0].Runs, test.runs) {
				t.Errorf("%+v, %v", maps, err)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "pages-1.img")); err != nil || !bytes.Equal(got, test.pages) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if again, err := Open(dir); err != nil || len(again.Parents) > 0 || again.Packed() {
				t.Errorf("%+v, %v", again, err)
			}
			if size := plan.Bytes(); size < int64(len(test.pages)) || size > int64(len(test.pages))+4096 {
				t.Errorf("%d bytes are announced for %d of memory", size, len(test.pages))
			}
		})
	}
}

func TestLazyRunsLeadIntoCompressedFiles(t *testing.T) {
	dir := linked(t)
	l := openLazy(t, dir)
	want := []LazySpace{{VPid: 7, Runs: []LazyRun{lazyRun(16, 1, 5), lazyRun(17, 1, 3), lazyRun(25, 1, 1)}}}
	if !reflect.DeepEqual(l.Spaces, want) {
		t.Errorf("%+v", l.Spaces)
	}
	for i, name := range []string{"2/pages-1.img.zst", "1/pages-1.img", "0/pages-1.img.zst"} {
		if f := l.Files[i]; f.Path != filepath.Join(filepath.Dir(dir), name) || f.Known.Packed() != strings.HasSuffix(name, ".zst") {
			t.Errorf("file %d is %q", i, f.Path)
		}
	}
}

func TestPagesAreComparedWithACompressedParent(t *testing.T) {
	dir := t.TempDir()
	first := book{16: 1, 17: 2, 18: 3}
	put(t, filepath.Join(dir, "1"), "", map[int]book{7: first}, map[int][]memory.Range{7: first.ranges(16, 3)})
	if err := Write(t.Context(), filepath.Join(dir, "1"), Origin{Compress: true}); err != nil {
		t.Fatal(err)
	}
	second := book{16: 1, 17: 9, 18: 3}
	put(t, filepath.Join(dir, "2"), "../1", map[int]book{7: second}, map[int][]memory.Range{7: second.ranges(16, 3)})
	if got, data := mapOf(t, filepath.Join(dir, "2"), 7); got != "16+1:1 17+1:6 18+1:1" || !bytes.Equal(data, page(9)) {
		t.Errorf("%s, %d bytes", got, len(data))
	}
	for name, want := range map[string]bool{"1": true, "2": true} {
		if got, err := HasPacked(filepath.Join(dir, name)); err != nil || got != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// A byte that is altered or missing is never taken for memory, and the file is named.
func TestDamagedCompressedPagesAreFound(t *testing.T) {
	alter := func(f *os.File, size int64) error {
		b := make([]byte, 1)
		_, err := f.ReadAt(b, size-1)
		b[0]++
		_, err2 := f.WriteAt(b, size-1)
		return errors.Join(err, err2)
	}
	for name, test := range map[string]struct {
		damage func(f *os.File, size int64) error
		opens  bool // it is found when the pages are read
	}{
		"altered": {alter, true},
		"cut":     {func(f *os.File, size int64) error { return f.Truncate(size - 1) }, false},
		"longer":  {func(f *os.File, size int64) error { _, err := f.WriteAt([]byte{0}, size); return err }, false},
		"gone":    {func(f *os.File, _ int64) error { return os.Remove(f.Name()) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := linked(t)
			f, err := os.OpenFile(filepath.Join(dir, "pages-1.img.zst"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err == nil {
				err = test.damage(f, info.Size())
			}
			if err != nil {
				t.Fatal(err)
			}
			set, err := Open(dir)
			if (err == nil) != test.opens {
				t.Fatalf("open: %v", err)
			}
			if test.opens {
				plan, planErr := set.Unpack(false)
				if planErr != nil {
					t.Fatal(planErr)
				}
				for what, err := range map[string]error{"verify": set.VerifyPacked(t.Context()), "verify all": set.VerifyPages(t.Context()), "unpack": plan.Write(t.Context(), t.TempDir())} {
					if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "pages-1.img.zst: ") {
						t.Errorf("%s: %v", what, err)
					}
				}
				return
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "pages-1.img.zst: ") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestCompressedSetWithoutItsManifestSaysHowToUnpackIt(t *testing.T) {
	dir := checkpoint(t)
	compressed(t, dir)
	if err := os.Remove(filepath.Join(dir, manifestName)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "zstd -d pages-1.img.zst") {
		t.Errorf("%v", err)
	}
}

func TestManifestOfCompressedPagesIsChecked(t *testing.T) {
	const sum = `"00000000000000000000000000000000"`
	for text, ok := range map[string]bool{
		`{"version":2,"metadata":[],"pages":[{"name":"pages-1.img","size":8192,"chunk":4096,"xxh3":[` + sum + `,` + sum + `],"zstd":[9,4100]}]}`: true,
		`{"version":1,"metadata":[],"pages":[{"name":"pages-1.img","size":8192,"chunk":4096,"xxh3":[` + sum + `,` + sum + `],"zstd":[9,4100]}]}`: false,
		`{"version":2,"metadata":[],"pages":[{"name":"pages-1.img","size":8192,"chunk":4096,"xxh3":[` + sum + `,` + sum + `],"zstd":[9]}]}`:      false,
		`{"version":2,"metadata":[],"pages":[{"name":"pages-1.img","size":8192,"chunk":4096,"xxh3":[` + sum + `,` + sum + `],"zstd":[0,9]}]}`:    false,
		`{"version":2,"metadata":[],"pages":[{"name":"pages-1.img","size":8192,"chunk":4096,"xxh3":[` + sum + `,` + sum + `],"zstd":[9,5000]}]}`: false,
		`{"version":2,"metadata":[],"pages":[{"name":"pages-1.img","size":8190,"chunk":4096,"xxh3":[` + sum + `,` + sum + `],"zstd":[9,9]}]}`:    false,
		`{"version":2,"metadata":[],"pages":[{"name":"pages-1.img","size":100,"chunk":100,"xxh3":[` + sum + `],"zstd":[9]}]}`:                    false,
		`{"version":2,"metadata":[],"pages":[{"name":"pages-1.img","size":0,"chunk":4096,"xxh3":[],"zstd":[]}]}`:                                 false,
	} {
		if _, err := parseManifest([]byte(text)); (err == nil) != ok || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
