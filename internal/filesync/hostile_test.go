package filesync

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/fs"
	"github.com/livemigrate/migrate/internal/testutil"
)

func fileOp(path string) *operation {
	return &operation{kind: opFile, path: path, meta: meta{Mode: syscall.S_IFREG | 0o644, Size: 4}, digest: digestOf([]byte("evil")), content: []byte("evil")}
}

func nodeOp(path string, mode uint32) *operation {
	return &operation{kind: opNode, path: path, meta: meta{Mode: mode, Target: "x"}}
}

// TestHostileSourceCannotLeaveTheRoot sends what no source of ours would. Nothing outside the root may change.
func TestHostileSourceCannotLeaveTheRoot(t *testing.T) {
	dir := func(path string) *operation { return nodeOp(path, syscall.S_IFDIR|0o755) }
	toOutside := &operation{kind: opNode, path: "link", meta: meta{Mode: syscall.S_IFLNK | 0o777, Target: "../outside"}}
	huge := fileOp("x")
	huge.meta.Size = 1 << 50
	for _, c := range []struct {
		name string
		ops  []*operation
		want error // nil: the operation may be asked for again, but has no effect
	}{
		{"absolute", []*operation{fileOp("/tmp/x")}, ErrRefused},
		{"parent", []*operation{fileOp("../outside/x")}, ErrRefused},
		{"parent inside", []*operation{fileOp("a/../../outside/x")}, ErrRefused},
		{"dot", []*operation{fileOp("./x")}, ErrRefused},
		{"empty name", []*operation{fileOp("a//b")}, ErrRefused},
		{"no name", []*operation{fileOp("")}, ErrRefused},
		{"NUL", []*operation{fileOp("a\x00b")}, ErrRefused},
		{"long name", []*operation{fileOp(strings.Repeat("n", 256))}, ErrRefused},
		{"long path", []*operation{fileOp(strings.Repeat("nn/", 2000) + "x")}, ErrRefused},
		{"root as a file", []*operation{fileOp(".")}, ErrRefused},
		{"root removed", []*operation{{kind: opRemove, path: "."}}, ErrRefused},
		{"root as a symlink", []*operation{nodeOp(".", syscall.S_IFLNK|0o777)}, ErrRefused},
		{"through a symlink", []*operation{toOutside, fileOp("link/x")}, nil},
		{"removed through a symlink", []*operation{toOutside, {kind: opRemove, path: "link/victim"}}, nil},
		{"linked through a symlink", []*operation{toOutside, {kind: opLink, path: "mine", from: "link/victim"}}, nil},
		{"moved through a symlink", []*operation{toOutside, {kind: opMove, path: "mine", from: "link/victim", meta: meta{Mode: syscall.S_IFREG}}}, nil},
		{"link from outside", []*operation{{kind: opLink, path: "mine", from: "../outside/victim"}}, ErrRefused},
		{"attributes through a symlink", []*operation{toOutside, dir("link")}, nil},
		{"wrong digest", []*operation{{kind: opFile, path: "x", meta: meta{Mode: syscall.S_IFREG}}}, ErrDigest},
		{"chunk without a file", []*operation{{kind: opChunk, length: 1}}, ErrRefused},
		{"close without a file", []*operation{{kind: opClose, meta: meta{Mode: syscall.S_IFREG}}}, ErrRefused},
		{"file in a file", []*operation{{kind: opOpen, path: "x"}, {kind: opOpen, path: "y"}}, ErrRefused},
		{"chunks backwards", []*operation{
			{kind: opOpen, path: "x"}, {kind: opChunk, index: 1, length: 1}, {kind: opChunk, index: 0, length: chunkSize},
		}, ErrRefused},
		{"end in a file", []*operation{{kind: opOpen, path: "x"}}, ErrRefused},
		{"far chunk", []*operation{{kind: opOpen, path: "x"}, {kind: opChunk, index: 1 << 40, length: 1}}, ErrRefused},
		{"size and content differ", []*operation{huge}, ErrRefused},
		{"regular file as a node", []*operation{nodeOp("x", syscall.S_IFREG)}, ErrRefused},
		{"unknown type", []*operation{nodeOp("x", 0o170000)}, ErrRefused},
		{"unknown operation", []*operation{{kind: 99, path: "x"}}, ErrRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			must(t, os.MkdirAll(top+"/root", 0o755))
			must(t, os.MkdirAll(top+"/outside", 0o700))
			must(t, os.WriteFile(top+"/outside/victim", []byte("precious"), 0o600))
			before := describe(t, top+"/outside")
			err := feed(t, top+"/root", nil, c.ops)
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Errorf("error %v, want %v", err, c.want)
			}
			after := describe(t, top+"/outside")
			if len(after) != len(before) || after["victim"] != before["victim"] || after["."] != before["."] {
				t.Errorf("outside was %v, is %v", before, after)
			}
			left, err := filepath.Glob(top + "/root/.migrate-*")
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestLimitsHold(t *testing.T) {
	for name, limits := range map[string]Limits{
		"operations": {Operations: 1}, "bytes": {Bytes: 5}, "file size": {FileSize: 3},
	} {
		t.Run(name, func(t *testing.T) {
			ops := []*operation{fileOp("a"), fileOp("b"), {kind: opOpen, path: "c"}, {kind: opChunk, length: 5}}
			if err := feed(t, t.TempDir(), &TargetOptions{Limits: limits}, ops); !errors.Is(err, ErrRefused) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// feed plays a source that sends the operations in a full pass and answers every need with end.
func feed(t *testing.T, root string, o *TargetOptions, ops []*operation) error {
	t.Helper()
	target, err := OpenTarget(root, o)
	must(t, err)
	defer target.Close()
	a, b, _ := newPipe()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { _, err := target.Serve(ctx, b); served <- err; cancel() }()
	frame := []byte{byte(frameChanges)}
	for _, op := range ops {
		frame = op.append(frame)
	}
	go func() {
		_ = a.Send(ctx, encodeBegin(passFull)) // the end of the other side ends these as well
		_ = a.Send(ctx, frame)
		_ = a.Send(ctx, []byte{byte(frameEnd)})
	}()
	for {
		frame, err := a.Recv(ctx, nil)
		if err != nil {
			return <-served
		}
		if frameKind(frame[0]) == frameNeed {
			_ = a.Send(ctx, []byte{byte(frameEnd)})
		}
	}
}

func TestIncrementalPassNeedsABase(t *testing.T) {
	p := newPair(t)
	p.write("x", "x")
	p.open(SourceOptions{}, true)
	p.pass()
	must(t, p.target.Close())
	var err error
	p.target, err = OpenTarget(p.dst, nil)
	must(t, err)
	if _, err, served := p.try((*Source).Pass); !errors.Is(err, ErrNoBase) || !errors.Is(served, ErrNoBase) {
		t.Errorf("source: %v; peer: %v", err, served)
	}
	p.pass() // full again
	p.equal()
}

func TestDamagedIndexIsBuiltAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	id := treeID{fsid: 1, root: 2}
	fill := func() {
		x, err := openIndex(path, id, discard())
		must(t, err)
		must(t, x.begin())
		for i := range uint64(10_000) {
			x.put(record{inode: inode{ino: i*3 + 1}, size: int64(i), digest: Digest{byte(i)}})
		}
		must(t, x.close())
	}
	for name, damage := range map[string]func(b []byte) []byte{
		"none":   func(b []byte) []byte { return b },
		"cut":    func(b []byte) []byte { return b[:len(b)/2] },
		"header": func(b []byte) []byte { b[20] ^= 1; return b },
		"record": func(b []byte) []byte {
			i := bytes.LastIndexFunc(b, func(r rune) bool { return r != 0 })
			b[i] ^= 1
			return b
		},
		"other format": func([]byte) []byte {
			return []byte("something else entirely, and long enough to be looked at as if it were a header of an index, which it is not")
		},
		"empty": func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			_ = os.Remove(path) // the first time there is none
			fill()
			b, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, damage(b), 0o600))
			x, err := openIndex(path, id, discard())
			must(t, err)
			defer x.close()
			r, ok := x.get(inode{ino: 9999*3 + 1})
			if ok != (name == "none") || ok && (r.size != 9999 || r.digest[0] != byte(9999%256)) {
				t.Errorf("record %+v, %v", r, ok)
			}
			if _, err := openIndex(path, id, discard()); !errors.Is(err, ErrBusy) {
				t.Errorf("second opener: %v", err)
			}
		})
	}
	x, err := openIndex(path, treeID{fsid: 1, root: 3}, discard())
	must(t, err)
	defer x.close()
	if _, ok := x.get(inode{ino: 1}); ok {
		t.Error("another tree's index was believed")
	}
}

func TestIndexCountsAfterARestartOnlyWhenSynced(t *testing.T) {
	for _, synced := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "index")
		x, err := openIndex(path, treeID{fsid: 1, root: 2}, discard())
		must(t, err)
		x.boot[0] ^= 1 // written by an earlier boot
		must(t, x.begin())
		x.put(record{inode: inode{ino: 7}})
		if synced {
			must(t, x.markClean())
		}
		must(t, x.close())
		x, err = openIndex(path, treeID{fsid: 1, root: 2}, discard())
		must(t, err)
		if _, ok := x.get(inode{ino: 7}); ok != synced {
			t.Errorf("synced %v: record found %v", synced, ok)
		}
		must(t, x.close())
	}
}

func TestPathsAreOrderedAsAWalkMeetsThem(t *testing.T) {
	order := []string{".", "a", "a/b", "a/b/c", "a/c", "a!", "a.b", "b"}
	for i := range order {
		for j := range order {
			got := comparePaths(order[i], order[j])
			if (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("%q against %q: %d", order[i], order[j], got)
			}
		}
	}
}

func FuzzOperations(f *testing.F) {
	for _, o := range []*operation{
		fileOp("a/b"), nodeOp("d", syscall.S_IFDIR|0o755), nodeOp("l", syscall.S_IFLNK|0o777),
		{kind: opMove, path: "a", from: "b", meta: meta{Mode: syscall.S_IFREG, Xattrs: []xattr{{"user.x", []byte("y")}}}},
		{kind: opOpen, path: "a", flag: true},
		{kind: opLink, path: "a", from: "b"},
		{kind: opRemove, path: "a"},
		{kind: opChunk, index: 3, length: 9, extents: []extent{{1, []byte("x")}, {4, []byte("yz")}}},
		{kind: opClose, meta: meta{Mode: syscall.S_IFREG, Size: 5, Mtime: fs.Time{Sec: -1, Nsec: 5}}},
	} {
		f.Add(o.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := decoder{b: b}
		var o, again operation
		for len(d.b) > 0 && o.decode(&d) == nil {
			e := decoder{b: o.append(nil)}
			if err := again.decode(&e); err != nil || len(e.b) > 0 {
				t.Fatalf("%+v does not decode again: %v", o, err)
			}
			if !bytes.Equal(again.append(nil), o.append(nil)) {
				t.Fatalf("%+v became %+v", o, again)
			}
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add(appendListed(appendListed(nil, "", &listed{path: "a/b"}), "a/b", &listed{path: "a/c", file: true}))
	f.Add(encodeDone(&outcome{Files: 1})[1:])
	f.Add(encodeFail(ErrNoSpace)[1:])
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = decodeListed(b)
		_, _ = decodeNeed(b)
		_, _ = decodeDone(b)
		_, _ = decodeBegin(b)
		_ = decodeFail(b)
	})
}

// played is a source that says what it was given, and reads nothing.
type played struct{ frames [][]byte }

func (p *played) Send(context.Context, ...[]byte) error { return nil }

func (p *played) Recv(_ context.Context, buf []byte) ([]byte, error) {
	if len(p.frames) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	frame := p.frames[0]
	p.frames = p.frames[1:]
	return append(buf[:0], frame...), nil
}

// FuzzTarget: whatever a source sends, in whichever order, the peer stays within the root and within its limits.
func FuzzTarget(f *testing.F) {
	testutil.Root(f)
	framed := func(frames ...[]byte) (all []byte) {
		for _, frame := range frames {
			all = append(binary.LittleEndian.AppendUint16(all, uint16(len(frame))), frame...)
		}
		return all
	}
	changes := func(ops ...*operation) []byte {
		frame := []byte{byte(frameChanges)}
		for _, o := range ops {
			frame = o.append(frame)
		}
		return frame
	}
	full, incremental, end := encodeBegin(passFull), encodeBegin(passIncremental), []byte{byte(frameEnd)}
	toOutside := &operation{kind: opNode, path: "link", meta: meta{Mode: syscall.S_IFLNK | 0o777, Target: "../outside"}}
	f.Add(framed(full, changes(nodeOp("d", syscall.S_IFDIR|0o755), fileOp("d/x")), end, end, incremental, changes(&operation{kind: opRemove, path: "d/x"}), end))
	f.Add(framed(full, changes(toOutside, fileOp("link/x"), &operation{kind: opRemove, path: "link/victim"}), end, end))
	f.Add(framed(full, changes(&operation{kind: opOpen, path: "x"}), changes(&operation{kind: opChunk, length: 9, extents: []extent{{1, []byte("x")}}}),
		changes(&operation{kind: opClose, meta: meta{Mode: syscall.S_IFREG | 0o600, Size: 9}}), end, end))
	f.Add(framed(full, changes(fileOp("a"), &operation{kind: opLink, path: "b", from: "a"}, &operation{kind: opMove, path: "c", from: "a", meta: meta{Mode: syscall.S_IFREG}}), end, end))
	f.Fuzz(func(t *testing.T, all []byte) {
		p := &played{}
		for len(all) > 2 {
			n := min(int(binary.LittleEndian.Uint16(all)), len(all)-2)
			p.frames, all = append(p.frames, all[2:2+n]), all[2+n:]
		}
		top := t.TempDir()
		must(t, os.Mkdir(top+"/root", 0o755))
		must(t, os.Mkdir(top+"/outside", 0o700))
		must(t, os.WriteFile(top+"/outside/victim", []byte("precious"), 0o600))
		before := describe(t, top+"/outside")
		target, err := OpenTarget(top+"/root", &TargetOptions{Limits: Limits{Operations: 100, Bytes: 1 << 20, FileSize: 1 << 20}})
		must(t, err)
		for len(p.frames) > 0 {
			if _, err := target.Serve(t.Context(), p); err != nil && len(p.frames) == 0 {
				break
			}
		}
		must(t, target.Close())
		after := describe(t, top+"/outside")
		if len(after) != len(before) || after["victim"] != before["victim"] || after["."] != before["."] {
			t.Errorf("outside was %v, is %v", before, after)
		}
		if beside, err := os.ReadDir(top); err != nil || len(beside) != 2 {
			t.Errorf("beside the root are %v, %v", beside, err)
		}
	})
}
