package unlinked

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/fs"
	"github.com/livemigrate/migrate/internal/testutil"
)

// lane is the in-memory twin of a transport's lane.
type lane struct {
	out chan<- []byte
	in  <-chan []byte
}

func lanes() (source, target *lane) {
	a, b := make(chan []byte, 4), make(chan []byte, 4)
	return &lane{a, b}, &lane{b, a}
}

func (l *lane) Send(ctx context.Context, parts ...[]byte) error {
	select {
	case l.out <- bytes.Join(parts, nil):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *lane) Recv(ctx context.Context, _ []byte) ([]byte, error) {
	select {
	case frame := <-l.in:
		return frame, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pair is this process as the container, and a directory as the peer.
type pair struct {
	t        *testing.T
	dir, top string
	source   *Source
	target   *Target
}

// newPair carries what this process has open, or others, as if they were a container with the mount that dir is on.
func newPair(t *testing.T, dir string, pids ...int) *pair {
	t.Helper()
	testutil.Root(t)
	if len(pids) == 0 {
		pids = []int{os.Getpid()}
	}
	p := &pair{t: t, dir: dir, top: t.TempDir()}
	root, err := fs.StatPath(mountPoint(t, dir))
	must(t, err)
	p.source, err = Open(&SourceOptions{
		Init: os.Getpid(), Processes: func() ([]int, error) { return pids, nil }, Roots: []fs.Stat{root}, Least: 1 << 20,
	})
	must(t, err)
	t.Cleanup(func() { must(t, p.source.Close()) })
	p.target = NewTarget(&TargetOptions{Top: p.top, Root: oneRoot, Ledger: filepath.Join(t.TempDir(), "ledger")})
	t.Cleanup(func() { must(t, p.target.Close()) })
	return p
}

// oneRoot is of a Target whose Top is all there is.
func oneRoot(index int) (string, error) {
	if index > 0 {
		return "", errors.New("no such root")
	}
	return ".", nil
}

// mountPoint is the root of the mount that a directory is on.
func mountPoint(t *testing.T, dir string) string {
	t.Helper()
	for dir != "/" {
		parent := filepath.Dir(dir)
		if mountIDOf(t, parent) != mountIDOf(t, dir) {
			return dir
		}
		dir = parent
	}
	return dir
}

func mountIDOf(t *testing.T, path string) int {
	t.Helper()
	dir, err := fs.OpenDir(path)
	must(t, err)
	defer dir.Close()
	id, err := fs.MountOf(dir.Fd())
	must(t, err)
	return id
}

// pass runs one, Pass or Delta.
func (p *pair) pass(pass func(context.Context, Channel) (Stats, error)) Stats {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	here, there := lanes()
	served := make(chan error, 1)
	go func() {
		_, err := p.target.Serve(ctx, there)
		served <- err
	}()
	stats, err := pass(ctx, here)
	must(p.t, err)
	must(p.t, <-served)
	return stats
}

// same compares a file with what the peer has of it.
func (p *pair) same(f *os.File) {
	p.t.Helper()
	want, err := fs.StatFile(f)
	must(p.t, err)
	id, err := fs.MountOf(int(f.Fd()))
	must(p.t, err)
	named, err := p.target.Name(id, want.Ino)
	must(p.t, err)
	if named == nil {
		p.t.Fatalf("%s has not come", f.Name())
	}
	below, err := filepath.Rel(mountPoint(p.t, p.dir), p.dir)
	must(p.t, err)
	path := filepath.Join(p.top, filepath.Base(named.Now))
	parent := mountPoint(p.t, p.dir) // its directory is not there
	if _, err := os.Stat(filepath.Join(p.top, below)); err == nil {
		parent, path = p.dir, filepath.Join(p.top, below, filepath.Base(named.Now))
	}
	if named.Path != f.Name() || filepath.Dir(named.Now) != parent {
		p.t.Errorf("%s is found as %s and called %s", f.Name(), named.Now, named.Path)
	}
	got, err := fs.StatPath(path)
	must(p.t, err)
	if got.Size != want.Size || got.Mode != want.Mode || got.UID != want.UID || got.GID != want.GID || got.Mtime != want.Mtime || got.Blocks > want.Blocks+16 {
		p.t.Errorf("%s is %+v, and was %+v", f.Name(), got, want)
	}
	there, err := os.Open(path)
	must(p.t, err)
	defer there.Close()
	for off, a, b := int64(0), make([]byte, 1<<20), make([]byte, 1<<20); off < want.Size; off += 1 << 20 {
		start, _, err := fs.NextData(f, off, want.Size)
		must(p.t, err)
		other, _, err := fs.NextData(there, off, want.Size)
		must(p.t, err)
		if off = min(start, other); off == want.Size {
			break
		}
		off = off >> 20 << 20
		n, _ := f.ReadAt(a, off)
		m, _ := there.ReadAt(b, off)
		if n != m || !bytes.Equal(a[:n], b[:m]) {
			p.t.Fatalf("%s differs from %d on", f.Name(), off)
		}
	}
}

// deleted makes a file of random bytes without a name.
func deleted(t *testing.T, dir, name string, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, name))
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	_, err = io.CopyN(f, rand.Reader, size)
	must(t, errors.Join(err, os.Remove(f.Name())))
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func writeAt(t *testing.T, f *os.File, off int64, data string) {
	t.Helper()
	_, err := f.WriteAt([]byte(data), off)
	must(t, err)
}

// What changes between a pass and the stop comes, whatever way it changes, and nothing else comes again.
func TestFilesAreTheSame(t *testing.T) {
	dir := t.TempDir()
	plain, grows, shrinks := deleted(t, dir, "plain", 3<<20+77), deleted(t, dir, "grows", 1<<20+5000), deleted(t, dir, "shrinks", 3<<20)
	sparse, punched, mapped := deleted(t, dir, "sparse", 1<<20), deleted(t, dir, "punched", 2<<20), deleted(t, dir, "mapped", 1<<20)
	must(t, sparse.Truncate(9<<30+1))
	writeAt(t, sparse, 8<<30+4096, "far away")
	memory, err := syscall.Mmap(int(mapped.Fd()), 0, 1<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	must(t, err)
	defer func() { must(t, syscall.Munmap(memory)) }()
	must(t, errors.Join(plain.Chown(1234, 4321), plain.Chmod(0o751|os.ModeSetuid)))
	p := newPair(t, dir)
	first := p.pass(p.source.Pass)
	if first.Files != 6 || first.Sent < 11<<20 || first.Sent > 12<<20 {
		t.Errorf("the first pass: %+v", first)
	}
	memory[123456] ^= 1
	writeAt(t, plain, 2<<20, "changed")
	writeAt(t, grows, 1<<20+4990, strings.Repeat("grown", 1000))
	must(t, shrinks.Truncate(1<<20+1))
	must(t, fs.PunchHole(punched, 512<<10, 700<<10))
	writeAt(t, sparse, 5<<30, "in between")
	last := p.pass(p.source.Delta)
	if last.Sent == 0 || last.Sent > 10*blockSize {
		t.Errorf("the difference: %+v", last)
	}
	if carried := p.source.Carried(); len(carried) != 6 {
		t.Errorf("carried: %+v", carried)
	}
	for i, f := range []*os.File{plain, grows, shrinks, sparse, punched, mapped} {
		if i == 3 {
			below, err := filepath.Rel(mountPoint(t, dir), dir)
			must(t, errors.Join(err, os.MkdirAll(filepath.Join(p.top, below), 0o700)))
		}
		p.same(f)
	}
	must(t, p.target.Close())
	must(t, filepath.WalkDir(p.top, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			t.Errorf("a name is left: %s", path)
		}
		return err
	}))
}

// A file that nobody can write to is not read again, unless its times say that somebody has.
func TestUntouchedFilesAreNotReadAgain(t *testing.T) {
	dir := t.TempDir()
	kind, _, err := fs.Kind(dir)
	must(t, err)
	const ext, xfs = 0xef53, 0x58465342
	testutil.Need(t, kind == ext || kind == xfs, "a temporary directory on a disk")
	files := make([]*os.File, 3)
	for i, name := range []string{"still", "touched", "writable"} {
		f := deleted(t, dir, name, 1<<20)
		if files[i] = f; i < 2 {
			files[i], err = os.Open("/proc/self/fd/" + itoa(f.Fd()))
			must(t, err)
			defer files[i].Close()
			must(t, f.Close())
		}
	}
	time.Sleep(2 * tick)
	p := newPair(t, dir)
	p.source.few = 0
	p.pass(p.source.Pass)
	again, err := os.OpenFile("/proc/self/fd/"+itoa(files[1].Fd()), os.O_RDWR, 0)
	must(t, err)
	writeAt(t, again, 10, "touched")
	must(t, again.Close())
	if last := p.pass(p.source.Delta); last.Skipped != 1 || last.Read != 2<<20 {
		t.Errorf("the difference: %+v", last)
	}
}

func itoa(fd uintptr) string { return strconv.Itoa(int(fd)) }

// Files come and go between passes; one that has a name again is none of ours.
func TestFilesComeAndGo(t *testing.T) {
	dir := t.TempDir()
	gone, kept, fresh := deleted(t, dir, "gone", 1<<20), deleted(t, dir, "kept", 1<<20), nameless(t, dir)
	_, err := os.Create(filepath.Join(dir, "named"))
	must(t, err)
	first, second := holder(t, gone, deleted(t, dir, "small", 4096)), holder(t, kept)
	p := newPair(t, dir, first, second)
	if stats := p.pass(p.source.Pass); stats.Files != 2 {
		t.Errorf("the first pass: %+v", stats)
	}
	third := holder(t, fresh)
	p.source.o.Processes = func() ([]int, error) { return []int{second, third}, nil }
	if stats := p.pass(p.source.Pass); stats.Files != 2 || len(p.target.files) != 2 || len(p.source.Carried()) != 2 {
		t.Errorf("the second pass: %+v, %d at the peer, %+v carried", stats, len(p.target.files), p.source.Carried())
	}
	p.same(kept)
	d, err := fs.OpenDir(dir)
	must(t, err)
	defer d.Close()
	must(t, d.Name(fresh, "again"))
	here, _ := lanes()
	if _, err := p.source.Delta(t.Context(), here); !errors.Is(err, ErrNamed) {
		t.Errorf("a file with a name again: %v", err)
	}
}

// nameless makes a file that never had a name.
func nameless(t *testing.T, dir string) *os.File {
	t.Helper()
	d, err := fs.OpenDir(dir)
	must(t, err)
	defer d.Close()
	f, err := d.Nameless()
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	_, err = io.CopyN(f, rand.Reader, 2<<20)
	must(t, err)
	return f
}

// holder starts a process that has files open, and nothing else to do.
func holder(t *testing.T, files ...*os.File) int {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// What is seen on a mount that does not travel, or is watched, is left to CRIU.
func TestOddFilesAreLeft(t *testing.T) {
	dir := t.TempDir()
	watched, elsewhere := deleted(t, dir, "watched", 1<<20), deleted(t, "/dev/shm", "unlinked-test", 1<<20)
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC)
	must(t, err)
	defer syscall.Close(fd)
	_, err = syscall.InotifyAddWatch(fd, "/proc/self/fd/"+itoa(watched.Fd()), syscall.IN_MODIFY)
	must(t, err)
	_ = deleted(t, dir, "plain", 1<<20)
	p := newPair(t, dir)
	st, err := fs.StatFile(elsewhere)
	must(t, err)
	if all := p.source.Inodes(); len(all) != 1 || all[[2]uint64{st.Dev, st.Ino}] != 0 {
		t.Errorf("taken: %v", all)
	}
}

// hostile plays frames and takes what comes.
type hostile struct{ frames [][]byte }

func (h *hostile) Send(context.Context, ...[]byte) error { return nil }

func (h *hostile) Recv(context.Context, []byte) ([]byte, error) {
	if len(h.frames) == 0 {
		return nil, io.EOF
	}
	frame := h.frames[0]
	h.frames = h.frames[1:]
	return frame, nil
}

// FuzzTarget: whatever a source sends, in whichever order, nothing is made but files without a name, and those within the limits.
func FuzzTarget(f *testing.F) {
	place := []Place{{Mount: 7, Device: 1, Inode: 2, Point: "/", Path: "/x"}}
	attr := (&attributes{size: 100, mode: syscall.S_IFREG | 0o600}).encode(0)
	framed := func(frames ...[]byte) (all []byte) {
		for _, frame := range frames {
			all = append(binary.LittleEndian.AppendUint16(all, uint16(len(frame))), frame...)
		}
		return all
	}
	f.Add(framed(encodeFile(0, 100, place), numbers(frameListed), append(numbers(frameData, 0, 10), "data"...), numbers(frameHole, 0, 0, 4096), attr, numbers(frameEnd)))
	f.Add(framed(encodeFile(0, mostSize, place), append(numbers(frameData, 0, mostSize-1), "data"...), numbers(frameStill), numbers(frameDrop, 0), attr))
	f.Add(framed(encodeFile(1023, 0, append(place, Place{Root: 1, Path: "../../y"})), encodeFile(0, 0, place), numbers(frameDrop, 1023)))
	f.Fuzz(func(t *testing.T, all []byte) {
		h := &hostile{}
		for len(all) > 2 {
			n := min(int(binary.LittleEndian.Uint16(all)), len(all)-2)
			h.frames, all = append(h.frames, all[2:2+n]), all[2+n:]
		}
		dir := t.TempDir()
		target := NewTarget(&TargetOptions{Top: dir, Root: oneRoot})
		target.Limit(1 << 20)
		defer func() {
			must(t, target.Close())
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		}()
		if came, err := target.Serve(t.Context(), h); came > 1<<20 && !errors.Is(err, ErrTooMuch) {
			t.Errorf("%d bytes came: %v", came, err)
		}
		var disk int64
		for _, f := range target.files {
			if f.file != nil {
				st, err := fs.StatFile(f.file)
				must(t, err)
				disk += st.Blocks * 512
			}
		}
		if most := int64(1<<20 + 64<<10*(len(target.files)+1)); disk > most { // some is the filesystem's own
			t.Errorf("%d bytes on the disk, at most %d may come", disk, most)
		}
		if named, err := target.Name(7, 2); named != nil && err == nil && filepath.Base(named.Now) == "" {
			t.Errorf("named %+v", named)
		}
	})
}
