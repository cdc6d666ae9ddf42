package image

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/livemigrate/migrate/internal/memory"
)

// record encodes a message of numbers and messages.
func record(fields ...any) []byte {
	var out []byte
	for i := 0; i < len(fields); i += 2 {
		field := protowire.Number(fields[i].(int))
		switch v := fields[i+1].(type) {
		case int:
			out = protowire.AppendVarint(protowire.AppendTag(out, field, protowire.VarintType), uint64(v))
		case []byte:
			out = protowire.AppendBytes(protowire.AppendTag(out, field, protowire.BytesType), v)
		}
	}
	return out
}

func writeImage(t *testing.T, dir, name string, magic uint32, records ...[]byte) {
	t.Helper()
	file := []byte{0x19, 0x43, 0x56, 0x54, byte(magic), byte(magic >> 8), byte(magic >> 16), byte(magic >> 24)}
	for _, r := range records {
		file = appendRecord(file, r)
	}
	if err := os.WriteFile(filepath.Join(dir, name), file, 0o600); err != nil {
		t.Fatal(err)
	}
}

// pages is memory in which every page holds its own address.
type pages struct{ closed *int }

func (p pages) ReadAt(b []byte, at int64) (int, error) {
	for i := range b {
		b[i] = byte((at + int64(i)) / memory.PageSize)
	}
	return len(b), nil
}

func (p pages) Close() error { *p.closed++; return nil }

func page(numbers ...int) []byte {
	var b []byte
	for _, n := range numbers {
		b = append(b, bytes.Repeat([]byte{byte(n)}, memory.PageSize)...)
	}
	return b
}

// claimed is a dump of one process on a parent of claims: anonymous memory from page 16 to 32 with the stack pointer in 20,
// a private file from 32 to 36, locked memory from 40 to 44 and unreadable memory, which CRIU dumps, from 48.
func claimed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	const p = memory.PageSize
	writeImage(t, dir, "pstree.img", 0x50273030, record(1, 7, 2, 0, 3, 7, 4, 7, 5, 7))
	writeImage(t, dir, "core-7.img", 0x55053847, record(2, record(2, record(20, 20*p+8))))
	vma := func(from, to, flags int) []byte { return record(1, from*p, 2, to*p, 6, flags, 7, 1) }
	writeImage(t, dir, "mm-7.img", 0x57492820, record(
		14, vma(48, 50, 0x22), 14, vma(16, 32, 0x22), 14, vma(32, 36, 0x2), 14, vma(40, 44, 0x2022)))
	entry := func(at, count, flags int) []byte { return record(1, at*p, 2, count, 4, flags, 5, count) }
	writeImage(t, dir, "pagemap-7.img", pageMapMagic, record(1, 1), entry(16, 18, 1), entry(41, 2, 1), entry(48, 2, 6))
	if err := os.WriteFile(filepath.Join(dir, "pages-1.img"), page(148, 149), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("claims", filepath.Join(dir, parentName)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func runs(m *PageMap) string {
	var text strings.Builder
	for _, r := range m.Runs {
		fmt.Fprintf(&text, "%d+%d:%d ", r.Start/memory.PageSize, r.Pages, r.Flags)
	}
	return strings.TrimSpace(text.String())
}

func TestClaimsAreResolvedAndTheRestIsFilledIn(t *testing.T) {
	dir := claimed(t)
	if err := CheckResolved(dir); !errors.Is(err, ErrUnresolved) || !strings.Contains(err.Error(), "pagemap-7.img") {
		t.Errorf("before: %v", err)
	}
	closed := 0
	open := func(vpid int) (Memory, error) {
		if vpid != 7 {
			t.Errorf("process %d", vpid)
		}
		return pages{&closed}, nil
	}
	maps, err := Resolve(dir, open)
	if err != nil || len(maps) != 1 {
		t.Fatal(maps, err)
	}
	// The page of the stack pointer, the file's and the locked ones are there; what CRIU dumped is as it was.
	if got, want := runs(maps[0]), "16+4:2 20+1:4 21+11:2 32+2:4 41+2:4 48+2:6"; got != want {
		t.Errorf("resolved %s, want %s", got, want)
	}
	checkPagesOf(t, dir, maps[0], page(20, 32, 33, 41, 42, 148, 149))
	want := []memory.Range{{Start: 16 * memory.PageSize, Pages: 4}, {Start: 21 * memory.PageSize, Pages: 11}}
	if left := maps[0].Left(); !slices.Equal(left, want) {
		t.Errorf("left %v", left)
	}
	if err := checkCRIUFiles(dir); err != nil {
		t.Error(err)
	}

	// What has both flags is in a file, and nobody else has it.
	if err := maps[0].KeepPresent(dir); err != nil {
		t.Fatal(err)
	}
	if maps, err = ReadPageMaps(dir); err != nil {
		t.Fatal(err)
	}
	if got, want := runs(maps[0]), "16+4:2 20+1:4 21+11:2 32+2:4 41+2:4 48+2:4"; got != want {
		t.Errorf("present %s, want %s", got, want)
	}

	if err := Fill(dir, open); err != nil {
		t.Fatal(err)
	}
	if maps, err = ReadPageMaps(dir); err != nil {
		t.Fatal(err)
	}
	if got, want := runs(maps[0]), "16+4:6 20+1:4 21+11:6 32+2:4 41+2:4 48+2:4"; got != want {
		t.Errorf("filled %s, want %s", got, want)
	}
	checkPagesOf(t, dir, maps[0], page(16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 41, 42, 148, 149))
	if closed != 2 {
		t.Errorf("memory closed %d times", closed)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "pages-*")); err != nil || len(files) != 1 {
		t.Errorf("page files %q", files)
	}
}

// checkCRIUFiles is what a restore looks at in a set without a manifest, but for the inventory.
func checkCRIUFiles(dir string) error {
	return errors.Join(checkCRIU(dir, false), CheckResolved(dir))
}

func checkPagesOf(t *testing.T, dir string, m *PageMap, want []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, pagesName(m.PagesID)))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("page file of %d pages, want %d; %v", len(got)/memory.PageSize, len(want)/memory.PageSize, err)
	}
}

// What cannot be resolved stays as it was: the caller rolls back.
func TestClaimThatCannotBeReadChangesNothing(t *testing.T) {
	closed := 0
	broken := errors.New("no such memory")
	for name, open := range map[string]func(int) (Memory, error){
		"no process": func(int) (Memory, error) { return nil, broken },
		"unreadable": func(int) (Memory, error) { return failing{pages{&closed}, broken}, nil },
	} {
		dir := claimed(t)
		before := names(t, dir)
		if _, err := Resolve(dir, open); !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		if after := names(t, dir); !slices.Equal(after, before) {
			t.Errorf("%s: files %q, were %q", name, after, before)
		}
		if err := CheckResolved(dir); !errors.Is(err, ErrUnresolved) {
			t.Errorf("%s: passes the check: %v", name, err)
		}
	}
	dir := claimed(t)
	writeImage(t, dir, "mm-7.img", 0x57492820, record())
	if _, err := Resolve(dir, func(int) (Memory, error) { return pages{&closed}, nil }); err == nil {
		t.Error("a page outside of any mapping is resolved")
	}
}

type failing struct {
	pages
	err error
}

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestOnlyMapsWithoutAParentPass(t *testing.T) {
	entry := func(flags ...any) []byte { return record(append([]any{1, 4096, 2, 1}, flags...)...) }
	for _, tt := range []struct {
		name  string
		entry []byte
		ok    bool
	}{
		{"pagemap-1.img", entry(4, 6), true},
		{"pagemap-1.img", entry(4, 2), true},
		{"pagemap-1.img", entry(), true}, // before CRIU 2.4
		{"pagemap-1.img", entry(3, 1), false},
		{"pagemap-1.img", entry(4, 1), false},
		{"pagemap-1.img", entry(4, 3), false},
		{"pagemap-shmem-12.img", entry(4, 1), false},
	} {
		dir := t.TempDir()
		writeImage(t, dir, tt.name, pageMapMagic, record(1, 1), tt.entry)
		err := CheckResolved(dir)
		if tt.ok && err != nil || !tt.ok && (!errors.Is(err, ErrUnresolved) || !strings.Contains(err.Error(), tt.name)) {
			t.Errorf("%s with %x: %v", tt.name, tt.entry, err)
		}
	}
	dir := t.TempDir()
	if err := os.Symlink("claims", filepath.Join(dir, parentName)); err != nil {
		t.Fatal(err)
	}
	if err := CheckResolved(dir); !errors.Is(err, ErrUnresolved) {
		t.Errorf("a link alone: %v", err)
	}
}

func TestDamagedPageMapIsRefused(t *testing.T) {
	for name, entries := range map[string][][]byte{
		"odd address":   {record(1, 1, 2, 1)},
		"overlap":       {record(1, 4096, 2, 2), record(1, 8192, 2, 1)},
		"out of order":  {record(1, 8192, 2, 1), record(1, 4096, 2, 1)},
		"too many":      {record(1, 4096, 5, 1<<52+1)},
		"no message":    {{0xff}},
		"cut in number": {{0x08, 0x80}},
	} {
		dir := t.TempDir()
		writeImage(t, dir, "pagemap-1.img", pageMapMagic, append([][]byte{record(1, 1)}, entries...)...)
		if _, err := ReadPageMaps(dir); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPageMapIsWrittenAsItWasRead(t *testing.T) {
	for name, entry := range map[string][]byte{
		"up to 4.1": record(1, 4096, 2, 7, 4, 6),
		"from 4.2":  record(1, 4096, 2, 7, 4, 6, 5, 7),
		"wide only": record(1, 4096, 4, 6, 5, 7),
	} {
		dir := t.TempDir()
		writeImage(t, dir, "pagemap-3.img", pageMapMagic, record(1, 9), entry)
		before, err := os.ReadFile(filepath.Join(dir, "pagemap-3.img"))
		if err != nil {
			t.Fatal(err)
		}
		maps, err := ReadPageMaps(dir)
		if err != nil || len(maps) != 1 || maps[0].VPid != 3 || maps[0].PagesID != 9 {
			t.Fatalf("%s: %v, %v", name, maps, err)
		}
		if err := maps[0].Write(dir); err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(filepath.Join(dir, "pagemap-3.img"))
		if err != nil || !bytes.Equal(after, before) {
			t.Errorf("%s: %x, was %x, %v", name, after, before, err)
		}
	}
}

func TestClaimsCoverEveryAddressOfEachProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "claims")
	if err := errors.Join(WriteClaims(dir, time.Hour), Claim(dir, []int{1, 12})); err != nil {
		t.Fatal(err)
	}
	if err := checkInventory(dir); err != nil {
		t.Error(err)
	}
	maps, err := ReadPageMaps(dir)
	if err != nil || len(maps) != 2 {
		t.Fatal(maps, err)
	}
	for _, m := range maps {
		at := uint64(0)
		for _, run := range m.Runs {
			if run.Start != at || run.Pages > 1<<32-1 {
				t.Errorf("run of %d pages at %#x, expected at %#x", run.Pages, run.Start, at)
			}
			at = run.End()
		}
		if at != 1<<47 {
			t.Errorf("claims end at %#x", at)
		}
	}
	if err := WriteClaims(dir, 0); !errors.Is(err, os.ErrExist) {
		t.Errorf("over another: %v", err)
	}
}

func TestSharedMemorysPageFilesAreFound(t *testing.T) {
	dir := t.TempDir()
	writeImage(t, dir, "pagemap-shmem-5.img", pageMapMagic, record(1, 2))
	writeImage(t, dir, "pagemap-7.img", pageMapMagic, record(1, 1))
	if err := os.WriteFile(filepath.Join(dir, "pagemap-shmem-6.img"), []byte{1, 2, 3}, 0o600); err != nil { // just begun
		t.Fatal(err)
	}
	if files, err := SharedPages(dir); err != nil || !slices.Equal(files, []string{"pages-2.img"}) {
		t.Errorf("%q, %v", files, err)
	}
}
