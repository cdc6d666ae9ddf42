package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// file makes a CRIU image out of two magics and records.
func file(magic uint32, records ...[]byte) []byte {
	var b bytes.Buffer
	if magic != inventoryMagic {
		_ = binary.Write(&b, binary.LittleEndian, uint32(commonMagic))
	}
	_ = binary.Write(&b, binary.LittleEndian, magic)
	for _, r := range records {
		_ = binary.Write(&b, binary.LittleEndian, uint32(len(r)))
		b.Write(r)
	}
	return b.Bytes()
}

// message makes a protobuf message of integer fields: number, value, number, value.
func message(fields ...uint64) []byte {
	var b []byte
	for i := 0; i < len(fields); i += 2 {
		b = protowire.AppendTag(b, protowire.Number(fields[i]), protowire.VarintType)
		b = protowire.AppendVarint(b, fields[i+1])
	}
	return b
}

// checkpoint writes the smallest set: one task of three pages, two of them in its page file.
func checkpoint(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "inventory.img", file(inventoryMagic, message(1, imgVersion)))
	write(t, dir, "pstree.img", file(0x50273030, message(1, 7, 2, 0, 3, 7, 4, 7, 5, 7), message(1, 8, 2, 7, 3, 7, 4, 7, 5, 2132460496)))
	write(t, dir, "core-7.img", file(0x55053847, message(1, 1)))
	write(t, dir, "core-8.img", file(0x55053847, message(1, 1))) // a zombie, whose thread is a random number
	write(t, dir, "pagemap-7.img", file(0x56084025, message(1, 1), message(1, 0x1000, 2, 2, 4, 4), message(1, 0x9000, 2, 1, 4, 2)))
	write(t, dir, "pages-1.img", bytes.Repeat([]byte{0xaa}, 2*pageSize))
	if err := WriteDescriptors(dir, []string{"/dev/null", "pipe:[1]", "pipe:[1]"}); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "dump.log", []byte("not part of the set"))
	return dir
}

func write(t *testing.T, dir, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func manifest(t *testing.T, dir string) {
	t.Helper()
	if err := Write(t.Context(), dir, Origin{Created: time.Unix(1, 0), CRIU: "4.2.1", Kernel: "6.18"}); err != nil {
		t.Fatal(err)
	}
}

func verify(dir string) error {
	set, err := Open(dir)
	if err != nil {
		return err
	}
	return set.VerifyPages(context.Background())
}

func TestSetComesBackAsItWasWritten(t *testing.T) {
	dir := checkpoint(t)
	if err := verify(dir); err != nil {
		t.Errorf("without a manifest: %v", err)
	}
	manifest(t, dir)
	set, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if set.Manifest.CRIU != "4.2.1" || len(set.Manifest.Pages) != 1 || set.HasNetwork() {
		t.Errorf("%+v", set.Manifest)
	}
	if got, err := set.Descriptors(); err != nil || strings.Join(got, " ") != "/dev/null pipe:[1] pipe:[1]" {
		t.Errorf("descriptors %q, %v", got, err)
	}
	if err := errors.Join(Sync(dir), set.VerifyPages(t.Context())); err != nil {
		t.Error(err)
	}
}

func TestDamageIsFoundAndTheFileNamed(t *testing.T) {
	change := func(name string, f func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			content, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, name, f(content))
		}
	}
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	flip := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name   string
		damage func(*testing.T, string)
		file   string
		bare   bool // is found without a manifest too
	}{
		{"core cut", change("core-7.img", cut), "core-7.img", true},
		{"core altered", change("core-7.img", flip), "core-7.img", false},
		{"core missing", remove("core-7.img"), "core-7.img", true},
		{"wrong magic", change("pstree.img", func(b []byte) []byte { b[4]++; return b }), "pstree.img", true},
		{"tree missing", remove("pstree.img"), "pstree.img", true},
		{"inventory of another version", change("inventory.img", func([]byte) []byte { return file(inventoryMagic, message(1, 9)) }), "inventory.img", true},
		{"pages cut", change("pages-1.img", cut), "pages-1.img", true},
		{"pages altered", change("pages-1.img", flip), "pages-1.img", false},
		{"pages missing", remove("pages-1.img"), "pages-1.img", true},
		{"descriptors altered", change("descriptors.json", flip), "descriptors.json", false},
		{"file too many", func(t *testing.T, dir string) { write(t, dir, "core-9.img", file(0x55053847)) }, "core-9.img", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := checkpoint(t)
			manifest(t, dir)
			test.damage(t, dir)
			if err := verify(dir); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), test.file) {
				t.Errorf("with a manifest: %v", err)
			}
			if !test.bare {
				return
			}
			remove(manifestName)(t, dir)
			if err := verify(dir); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), test.file) {
				t.Errorf("without a manifest: %v", err)
			}
		})
	}
}

func TestMissingInventoryIsNoCheckpoint(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		_, err := Open(dir)
		if !errors.Is(err, ErrNoCheckpoint) && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v", err)
		}
	}
}

func TestManifestOfALaterVersionIsRefusedAsSuch(t *testing.T) {
	dir := checkpoint(t)
	write(t, dir, manifestName, []byte(`{"version": 4, "metadata": "something new"}`))
	if _, err := Open(dir); !errors.Is(err, ErrVersion) {
		t.Errorf("%v", err)
	}
}

func TestParentsAreVerifiedToo(t *testing.T) {
	dir := checkpoint(t)
	parent := filepath.Join(dir, "pre")
	if err := os.Mkdir(parent, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, parent, "pagemap-7.img", file(0x56084025, message(1, 1), message(1, 0x1000, 2, 0, 4, 4, 5, 3)))
	write(t, parent, "pages-1.img", make([]byte, 3*pageSize))
	if err := os.Symlink("pre", filepath.Join(dir, parentName)); err != nil {
		t.Fatal(err)
	}
	manifest(t, parent)
	manifest(t, dir)
	if err := verify(dir); err != nil {
		t.Fatal(err)
	}
	altered := make([]byte, 3*pageSize)
	altered[5] = 1
	write(t, parent, "pages-1.img", altered)
	if err := verify(dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
	if err := os.Remove(filepath.Join(dir, parentName)); err != nil {
		t.Fatal(err)
	}
	if err := verify(dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("parent gone: %v", err)
	}
}

func TestRemoveLeavesWhatIsNotOfTheSet(t *testing.T) {
	dir := checkpoint(t)
	manifest(t, dir)
	write(t, dir, tmpfsName, nil)
	if err := Remove(dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "dump.log" {
		t.Errorf("%v, %v", entries, err)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"version":1,"criu":"4.2","kernel":"6","metadata":[],"pages":[]}`))
	f.Add([]byte(`{"version":1,"metadata":[{"name":"core-1.img","size":1,"blake3":"00"}],"pages":[{"name":"pages-1.img","size":-1,"chunk":0}]}`))
	f.Add([]byte(`{"version":2,"metadata":[],"pages":[{"name":"pages-1.img","size":4096,"chunk":4096,"xxh3":["00000000000000000000000000000000"],"zstd":[9]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseManifest(text)
		if err != nil {
			return
		}
		for _, p := range m.Pages {
			if !IsPages(p.Name) || p.Chunk <= 0 || int64(len(p.Digests)) != (p.Size+p.Chunk-1)/p.Chunk {
				t.Errorf("%+v", p)
			}
			if p.Packed() && (len(p.Frames) != len(p.Digests) || p.Index().Check() != nil) {
				t.Errorf("compressed: %+v", p)
			}
		}
	})
}

func FuzzImages(f *testing.F) {
	f.Add(file(0x56084025, message(1, 1), message(1, 0x1000, 2, 2, 4, 4)))
	f.Add(file(0x56084025))
	f.Fuzz(func(_ *testing.T, content []byte) {
		if records, err := parseRecords("pagemap-1.img", content, 0x56084025); err == nil {
			_ = countPages("pagemap-1.img", records, map[uint64]uint64{})
		}
	})
}

// FuzzPageMap: what a page map of another host says is in order, and is the same when it is written again.
func FuzzPageMap(f *testing.F) {
	f.Add(file(pageMapMagic, message(1, 1), message(1, 0x1000, 2, 2, 4, 4), message(1, 0x9000, 4, 2, 5, 1<<33)))
	f.Add(file(pageMapMagic, message(1, 1), message(1, 1<<63, 5, 1<<51)))
	f.Fuzz(func(t *testing.T, content []byte) {
		_, _ = pagesID(content)
		m, err := parsePageMap("pagemap-1.img", content)
		if err != nil {
			return
		}
		behind := uint64(0)
		for _, run := range m.Runs {
			if run.Start < behind || run.End() < run.Start {
				t.Errorf("%+v behind %#x", run, behind)
			}
			behind = run.End()
		}
		_ = m.Left()
		again, err := parsePageMap("pagemap-1.img", m.encode())
		if err != nil || again.PagesID != m.PagesID || !slices.Equal(again.Runs, m.Runs) {
			t.Errorf("%+v, written and read: %+v, %v", m, again, err)
		}
	})
}

// FuzzFiles: the sockets of a set that comes from elsewhere are read, and one that is closed stays a record that can be read.
func FuzzFiles(f *testing.F) {
	nested := func(field protowire.Number, inner []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), inner)
	}
	f.Add(nested(fileSocket, message(socketIno, 7, socketProtocol, 6, socketState, 1, socketSourcePort, 80, socketDestPort, 99, socketSource, 0x0100000a, socketDest, 0x0200000a)))
	f.Add(nested(fileSocket, append(message(socketProtocol, 6, socketState, 1), nested(socketSource, []byte{1, 2, 3, 4})...)))
	f.Fuzz(func(t *testing.T, record []byte) {
		file, err := parseEntry(record)
		if err != nil {
			return
		}
		socket, err := file.child(fileSocket)
		if err != nil {
			return
		}
		c, ok, err := connection(socket)
		if err != nil || !ok {
			return
		}
		if !c.Local.Addr().Is4() || !c.Remote.Addr().Is4() {
			t.Errorf("%+v", c)
		}
		closed, did, err := disconnectFile(record, []netip.Addr{c.Local.Addr()})
		if err != nil || did != (c.Remote.Port() != 0) { // a listening socket has none
			t.Errorf("%+v is not closed: %v", c, err)
		}
		if _, err := parseEntry(closed); err != nil {
			t.Errorf("%+v, closed, cannot be read: %v", c, err)
		}
	})
}

func TestSetWithoutAThreadIsDamaged(t *testing.T) {
	dir := checkpoint(t)
	write(t, dir, "pstree.img", file(0x50273030, message(1, 7, 2, 0, 3, 7, 4, 7, 5, 7, 5, 9)))
	if err := CheckTree(dir); err == nil || !strings.Contains(err.Error(), "core-9.img") {
		t.Errorf("a thread has no core image: %v", err)
	}
	write(t, dir, "core-9.img", file(0x55053847, message(1, 1)))
	if err := CheckTree(dir); err != nil {
		t.Error(err)
	}
}

func TestHighestPid(t *testing.T) {
	for _, c := range []struct {
		name string
		tree []byte
		want int
	}{
		{"a thread", file(0x50273030, message(1, 7, 2, 0, 3, 7, 4, 7, 5, 7, 5, 9)), 9},
		{"a process", file(0x50273030, message(1, 7, 3, 7, 4, 7, 5, 7, 5, 9), message(1, 12, 2, 7, 3, 7, 4, 7)), 12},
		{"a session whose leader has ended", file(0x50273030, message(1, 7, 3, 7, 4, 7), message(1, 8, 2, 7, 3, 20, 4, 20)), 20},
		{"a zombie, whose thread is not filled in", file(0x50273030, message(1, 8, 3, 7, 4, 7, 5, 2132460496)), 8},
		{"no number", file(0x50273030, message(1, 1<<23, 3, 7, 4, 7)), 0},
	} {
		dir := t.TempDir()
		write(t, dir, "pstree.img", c.tree)
		got, err := HighestPid(dir)
		if got != c.want || (err != nil) != (c.want == 0) {
			t.Errorf("%s: %d, %v; want %d", c.name, got, err, c.want)
		}
	}
}
