package filesync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestFullDiskIsSaidOnBothEnds(t *testing.T) {
	p := newPair(t)
	p.dst = mountTmpfs(t, "size=3m")
	p.write("a/small", "fits")
	p.write("b/large", strings.Repeat("x", 8<<20))
	for i := range 300 {
		p.write(fmt.Sprintf("c/%d", i), strings.Repeat("y", 100<<10))
	}
	p.open(SourceOptions{}, true)
	_, err, served := p.try((*Source).Pass)
	if !errors.Is(err, ErrNoSpace) || !errors.Is(served, ErrNoSpace) {
		t.Fatalf("source: %v; peer: %v", err, served)
	}
	if !strings.Contains(err.Error(), "b/large") {
		t.Errorf("the error does not name the file: %v", err)
	}
	// The channel is still usable, and what has been freed is enough.
	must(t, os.RemoveAll(p.at("b")))
	must(t, os.RemoveAll(p.at("c")))
	p.pass()
	p.equal()
}

func TestLinkLostInTheMiddleThenResumed(t *testing.T) {
	p := newPair(t)
	populate(p)
	for i := range 3000 {
		p.write(fmt.Sprintf("many/%d/%d", i%50, i), strings.Repeat("z", i))
	}
	p.open(SourceOptions{}, true)
	a, b, cut := newPipe()
	p.a, p.b = a, b
	var once sync.Once
	counted := &counting{Channel: a, after: 10, do: func() { once.Do(func() { close(cut) }) }}
	served := make(chan error, 1)
	go func() { _, err := p.target.Serve(t.Context(), b); served <- err }()
	if _, err := p.source.Pass(t.Context(), counted); !errors.Is(err, io.ErrClosedPipe) {
		t.Fatalf("source: %v", err)
	}
	if err := <-served; err == nil {
		t.Fatal("the peer did not notice")
	}
	p.a, p.b, _ = newPipe()
	st := p.delta()
	p.equal()
	if !st.Full {
		t.Error("after a failure the change log alone was trusted")
	}
}

// counting does something after some frames were sent.
type counting struct {
	Channel
	after int
	do    func()
}

func (c *counting) Send(ctx context.Context, parts ...[]byte) error {
	if c.after--; c.after < 0 {
		c.do()
	}
	return c.Channel.Send(ctx, parts...)
}

// TestPeerKilledThenResumed kills a process that serves, and goes on with a new one: its temporary files are cleaned up.
func TestPeerKilledThenResumed(t *testing.T) {
	if dir := os.Getenv("FILESYNC_SERVE"); dir != "" {
		serveStdio(t, dir, os.Getenv("FILESYNC_INDEX"))
		return
	}
	p := newPair(t)
	populate(p)
	for i := range 3000 {
		p.write(fmt.Sprintf("many/%d/%d", i%50, i), strings.Repeat("z", i))
	}
	p.write("zlarge", strings.Repeat("w", 20<<20))
	p.open(SourceOptions{}, true)
	must(t, p.target.Close())
	for _, after := range []int{4, 12, 25} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPeerKilledThenResumed$")
		cmd.Env = append(os.Environ(), "FILESYNC_SERVE="+p.dst, "FILESYNC_INDEX="+p.state+"/dst")
		in, err := cmd.StdinPipe()
		must(t, err)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		ch := &counting{Channel: &stream{in: out, out: in}, after: after, do: func() { _ = cmd.Process.Kill() }}
		if _, err := p.source.Pass(t.Context(), ch); err == nil {
			t.Error("the pass succeeded with a dead peer")
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	var err error
	p.target, err = OpenTarget(p.dst, &TargetOptions{IndexPath: p.state + "/dst"})
	must(t, err)
	st := p.pass()
	p.equal()
	if st.Files == 0 || st.Files > 3010 {
		t.Errorf("stats: %+v", st)
	}
}

func serveStdio(t *testing.T, dir, index string) {
	target, err := OpenTarget(dir, &TargetOptions{IndexPath: index})
	must(t, err)
	_, _ = target.Serve(t.Context(), &stream{in: os.Stdin, out: os.Stdout})
}

// stream is a channel over two byte streams.
type stream struct {
	in  io.Reader
	out io.Writer
}

func (s *stream) Send(_ context.Context, parts ...[]byte) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	frame := []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	for _, p := range parts {
		frame = append(frame, p...)
	}
	_, err := s.out.Write(frame)
	return err
}

func (s *stream) Recv(_ context.Context, _ []byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, int(head[0])<<24|int(head[1])<<16|int(head[2])<<8|int(head[3]))
	_, err := io.ReadFull(s.in, b)
	return b, err
}

// TestWritersDuringThePass lets writers do everything at once while passes run, stops them, and takes the delta.
func TestWritersDuringThePass(t *testing.T) {
	for _, watch := range []bool{true, false} {
		t.Run(fmt.Sprintf("watch=%v", watch), func(t *testing.T) {
			p := newPair(t)
			populate(p)
			for i := range 2000 {
				p.write(fmt.Sprintf("storm/%d/%d", i%20, i), fmt.Sprint(i))
			}
			p.open(SourceOptions{}, watch)
			stop := sync.OnceFunc(storm(p, 3))
			defer stop()
			for range 4 {
				p.pass()
			}
			stop()
			st := p.delta()
			p.equal()
			if watch && st.Full {
				t.Errorf("full: %s", st.Reason)
			}
		})
	}
}

func storm(p *pair, writers int) (stop func()) {
	var end atomic.Bool
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := 0; !end.Load(); i++ {
				dir := p.at(fmt.Sprintf("storm/%d", (i*7+w)%20))
				name := filepath.Join(dir, fmt.Sprint(i%97))
				_ = os.MkdirAll(dir, 0o755) // whatever fails because of another writer is part of the storm
				switch i % 13 {
				case 0, 1, 2:
					_ = os.WriteFile(name, []byte(strings.Repeat("s", i%9000)), 0o644)
				case 3:
					_ = os.Remove(name)
				case 4:
					_ = os.Rename(name, name+".old")
				case 5:
					_ = os.Link(name, name+".link")
				case 6:
					_ = os.Symlink("x", name+".sym")
				case 7:
					_ = os.Chmod(name, os.FileMode(0o600+i%64))
				case 8:
					_ = os.Rename(dir, p.at(fmt.Sprintf("storm/moved-%d-%d", w, i%5)))
				case 9:
					_ = os.RemoveAll(p.at(fmt.Sprintf("storm/moved-%d-%d", w, i%3)))
				case 10:
					p.scribble(p.at("large"), int64(i%5)<<20)
				case 11:
					_ = os.Truncate(p.at("large"), int64(4<<20+i%1000))
				case 12:
					_ = os.WriteFile(name+".tmp", []byte(fmt.Sprint(i)), 0o644)
					_ = os.Rename(name+".tmp", p.at("etc/passwd"))
				}
			}
		})
	}
	return func() { end.Store(true); group.Wait() }
}

func (p *pair) scribble(path string, off int64) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	_, _ = f.WriteAt([]byte(time.Now().String()), off)
	_ = f.Close()
}

func TestWritesThroughAMappingAreNotMissed(t *testing.T) {
	p := newPair(t)
	p.write("d/mapped", strings.Repeat("a", 3<<20))
	p.write("d/open", "a")
	p.write("d/read", "a")
	f, err := os.OpenFile(p.at("d/mapped"), os.O_RDWR, 0)
	must(t, err)
	mem, err := syscall.Mmap(int(f.Fd()), 0, 3<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	must(t, err)
	defer syscall.Munmap(mem)
	must(t, f.Close())
	open, err := os.OpenFile(p.at("d/open"), os.O_RDWR, 0)
	must(t, err)
	defer open.Close()
	read, err := os.Open(p.at("d/read"))
	must(t, err)
	defer read.Close()
	mem[0] = 'b' // the page is dirty before the pass: no fault, no new ctime later
	dirty := func() ([]string, error) { return WritableFiles(p.src, []int{os.Getpid()}) }
	list, err := dirty()
	if err != nil || strings.Join(list, " ") != "d/mapped d/open" {
		t.Errorf("writable files: %q, %v", list, err)
	}
	p.open(SourceOptions{DirtyFiles: dirty}, true)
	p.pass()
	mem[1] = 'c'
	mem[2<<20] = 'c'
	st := p.delta()
	p.equal()
	if st.Full || st.Bytes > 3<<20 {
		t.Errorf("stats: %+v", st)
	}
}

// The right to write is the open file's, not the mapping's: that has been taken away by the time of the stop, or lent for a moment.
func TestWritesThroughAMappingThatIsReadOnlySince(t *testing.T) {
	p := newPair(t)
	p.write("mapped", strings.Repeat("a", 3*4096))
	p.write("read", "a")
	f, err := os.OpenFile(p.at("mapped"), os.O_RDWR, 0)
	must(t, err)
	mem, err := syscall.Mmap(int(f.Fd()), 0, 3*4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	must(t, err)
	defer syscall.Munmap(mem)
	read, err := os.Open(p.at("read"))
	must(t, err)
	defer read.Close()
	other, err := syscall.Mmap(int(read.Fd()), 0, 1, syscall.PROT_READ, syscall.MAP_SHARED)
	must(t, err)
	defer syscall.Munmap(other)
	dirty := func() ([]string, error) { return WritableFiles(p.src, []int{os.Getpid()}) }
	p.open(SourceOptions{DirtyFiles: dirty}, true)
	mem[0] = 'b' // dirty from here on
	must(t, f.Close())
	p.pass()
	p.pass() // what the close has told is done with
	mem[1] = 'c'
	must(t, syscall.Mprotect(mem, syscall.PROT_READ))
	if list, err := dirty(); err != nil || strings.Join(list, " ") != "mapped" {
		t.Errorf("writable files: %q, %v", list, err)
	}
	p.delta()
	p.equal()
}

// meddler does something before each frame that is sent.
type meddler struct {
	Channel
	do func()
}

func (m *meddler) Send(ctx context.Context, parts ...[]byte) error {
	m.do()
	return m.Channel.Send(ctx, parts...)
}

func TestSomebodyElseWritesInTheStop(t *testing.T) {
	p := newPair(t)
	p.write("d/log", strings.Repeat("a", 3<<20))
	p.open(SourceOptions{DirtyFiles: func() ([]string, error) { return []string{"d/log"}, nil }}, true)
	p.pass()
	p.append("d/log", "b")
	_, err, _ := p.try(func(s *Source, ctx context.Context, ch Channel) (Stats, error) {
		return s.Delta(ctx, &meddler{ch, func() { p.append("d/log", "c") }})
	})
	if !errors.Is(err, ErrUnstable) || !strings.Contains(err.Error(), "writes to "+p.at("d/log")+"; end that") {
		t.Errorf("it said: %v", err)
	}
	p.delta()
	p.equal()
}

func TestExcludedIsLeftAlone(t *testing.T) {
	p := newPair(t)
	p.write("data/here", "only at the source")
	p.write("keep/x", "x")
	must(t, os.MkdirAll(filepath.Join(p.dst, "data/sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(p.dst, "data/sub/there"), []byte("only at the peer"), 0o600))
	p.open(SourceOptions{Exclude: []string{"data"}}, true)
	p.pass()
	p.write("data/new", "x")
	must(t, os.RemoveAll(p.at("keep")))
	p.delta()
	if got := describe(t, p.dst); len(got) != 4 || got["data/sub/there"] == "" {
		t.Errorf("the peer has %v", got)
	}
}

func TestOtherFilesystemsAreNotCrossed(t *testing.T) {
	p := newPair(t)
	p.write("mnt/beneath", "hidden by the mount")
	must(t, syscall.Mount("none", p.at("mnt"), "tmpfs", 0, "size=1m"))
	defer syscall.Unmount(p.at("mnt"), syscall.MNT_DETACH)
	p.write("mnt/above", "on the other filesystem")
	p.open(SourceOptions{}, true)
	p.pass()
	p.write("mnt/above2", "x")
	p.delta()
	if got := describe(t, p.dst); got["mnt/above"] != "" || got["mnt/above2"] != "" {
		t.Errorf("the peer has %v", got)
	}
}

func TestChangedThroughAnotherPath(t *testing.T) {
	p := newPair(t)
	outside := filepath.Join(filepath.Dir(p.src), "outside")
	must(t, os.MkdirAll(outside, 0o755))
	p.write("linked", "one")
	p.write("moved-in/x", "x")
	must(t, os.Link(p.at("linked"), outside+"/other-name"))
	bind := t.TempDir()
	must(t, syscall.Mount(p.src, bind, "", syscall.MS_BIND, ""))
	defer syscall.Unmount(bind, syscall.MNT_DETACH)
	must(t, os.MkdirAll(outside+"/dir/sub", 0o755))
	must(t, os.WriteFile(outside+"/dir/sub/file", []byte("from outside"), 0o600))
	p.open(SourceOptions{}, true)
	p.pass()
	f, err := os.OpenFile(outside+"/other-name", os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.WriteString(" two")
	must(t, err)
	must(t, f.Close())
	must(t, os.WriteFile(bind+"/by-bind", []byte("x"), 0o600))
	must(t, os.Rename(outside+"/dir", p.at("dir")))
	must(t, os.WriteFile(p.at("dir/sub/after"), []byte("y"), 0o600))
	must(t, os.Rename(p.at("moved-in"), outside+"/moved-out"))
	st := p.delta()
	if st.Full {
		t.Errorf("full: %s", st.Reason)
	}
	if b, err := os.ReadFile(p.dst + "/linked"); err != nil || string(b) != "one two" {
		t.Errorf("linked = %q, %v", b, err)
	}
	must(t, os.Remove(outside+"/other-name")) // the other name counts as a link in the comparison
	p.equal()
}
