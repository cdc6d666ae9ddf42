package filesync

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/fs"
	"github.com/livemigrate/migrate/internal/testutil"
)

// pipe is the in-memory twin of a transport's lane.
type pipe struct {
	out chan<- []byte
	in  <-chan []byte
	cut <-chan struct{} // closed: the link is down
	max int
}

func newPipe() (source, target *pipe, cut chan struct{}) {
	a, b, cut := make(chan []byte, 4), make(chan []byte, 4), make(chan struct{})
	return &pipe{out: a, in: b, cut: cut}, &pipe{out: b, in: a, cut: cut}, cut
}

func (p *pipe) Send(ctx context.Context, parts ...[]byte) error {
	var frame []byte
	for _, part := range parts {
		frame = append(frame, part...)
	}
	p.max = max(p.max, len(frame))
	select {
	case <-p.cut:
		return io.ErrClosedPipe
	default:
	}
	select {
	case p.out <- frame:
		return nil
	case <-p.cut:
		return io.ErrClosedPipe
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pipe) Recv(ctx context.Context, buf []byte) ([]byte, error) {
	select {
	case frame := <-p.in:
		return append(buf[:0], frame...), nil
	case <-p.cut:
		return nil, io.ErrClosedPipe
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pair is a source's tree and a peer's, side by side.
type pair struct {
	t        *testing.T
	src, dst string
	state    string // where the indexes are
	source   *Source
	target   *Target
	a, b     *pipe
}

func newPair(t *testing.T) *pair {
	t.Helper()
	testutil.Root(t)
	p := &pair{t: t, src: t.TempDir(), dst: t.TempDir(), state: t.TempDir()}
	p.a, p.b, _ = newPipe()
	return p
}

// open opens both sides; with watch the change log runs.
func (p *pair) open(o SourceOptions, watch bool) {
	p.t.Helper()
	o.IndexPath = filepath.Join(p.state, "src")
	var err error
	if p.source, err = OpenSource(p.src, &o); err != nil {
		p.t.Fatal(err)
	}
	if p.target, err = OpenTarget(p.dst, &TargetOptions{IndexPath: filepath.Join(p.state, "dst")}); err != nil {
		p.t.Fatal(err)
	}
	source, target := p.source, p.target
	p.t.Cleanup(func() { source.Close(); target.Close() })
	if watch {
		if err := source.Watch(p.t.Context()); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *pair) close() {
	p.t.Helper()
	if err := p.source.Close(); err != nil {
		p.t.Error(err)
	}
	if err := p.target.Close(); err != nil {
		p.t.Error(err)
	}
}

func (p *pair) pass() Stats  { p.t.Helper(); return p.sync((*Source).Pass) }
func (p *pair) delta() Stats { p.t.Helper(); return p.sync((*Source).Delta) }

func (p *pair) sync(do func(*Source, context.Context, Channel) (Stats, error)) Stats {
	p.t.Helper()
	st, err, served := p.try(do)
	if err != nil || served != nil {
		p.t.Fatalf("source: %v; peer: %v", err, served)
	}
	return st
}

func (p *pair) try(do func(*Source, context.Context, Channel) (Stats, error)) (st Stats, source, peer error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), 5*time.Minute)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		_, err := p.target.Serve(ctx, p.b)
		served <- err
	}()
	st, err := do(p.source, ctx, p.a)
	return st, err, <-served
}

// equal compares the trees by a walker that shares nothing with the code under test.
func (p *pair) equal() {
	p.t.Helper()
	a, b := describe(p.t, p.src), describe(p.t, p.dst)
	var all []string
	for k := range a {
		all = append(all, k)
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			all = append(all, k)
		}
	}
	sort.Strings(all)
	bad := 0
	for _, k := range all {
		if a[k] != b[k] {
			if bad++; bad > 10 {
				p.t.Fatalf("and more")
			}
			p.t.Errorf("%s:\n source %s\n peer   %s", k, a[k], b[k])
		}
	}
}

func describe(t *testing.T, root string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	groups := map[[2]uint64]string{} // device and inode -> first name
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		st := info.Sys().(*syscall.Stat_t)
		d := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			h := sha256.New()
			if _, err := io.Copy(h, f); err != nil {
				return err
			}
			d += fmt.Sprintf(" %d %s", st.Size, hex.EncodeToString(h.Sum(nil)[:8]))
		case syscall.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			d += " -> " + target
		case syscall.S_IFCHR, syscall.S_IFBLK:
			d += fmt.Sprintf(" rdev %d", st.Rdev)
		}
		if st.Mode&syscall.S_IFMT != syscall.S_IFDIR && st.Nlink > 1 {
			if first := groups[[2]uint64{st.Dev, st.Ino}]; first != "" {
				d += " linked to " + first
			} else {
				groups[[2]uint64{st.Dev, st.Ino}] = rel
			}
		}
		tree[rel] = d + xattrsOf(t, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func xattrsOf(t *testing.T, path string) string {
	t.Helper()
	dir, err := fs.OpenDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	names, err := dir.Xattrs(filepath.Base(path))
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, n := range names {
		v, err := dir.Xattr(filepath.Base(path), n)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, " %s=%x", n, v)
	}
	return b.String()
}

// tree helpers: every failure ends the test.

func (p *pair) at(name string) string { return filepath.Join(p.src, name) }

func (p *pair) write(name, content string) {
	p.t.Helper()
	must(p.t, os.MkdirAll(filepath.Dir(p.at(name)), 0o755))
	must(p.t, os.WriteFile(p.at(name), []byte(content), 0o644))
}

func (p *pair) setXattr(name, attr, value string) {
	p.t.Helper()
	dir, err := fs.OpenDir(filepath.Dir(p.at(name)))
	must(p.t, err)
	defer dir.Close()
	must(p.t, dir.SetXattr(filepath.Base(name), attr, []byte(value)))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mountTmpfs mounts a filesystem for the test.
func mountTmpfs(t testing.TB, options string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, syscall.Mount("none", dir, "tmpfs", 0, options))
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

func dropXattr(t *testing.T, path, attr string) {
	t.Helper()
	dir, err := fs.OpenDir(filepath.Dir(path))
	must(t, err)
	defer dir.Close()
	must(t, dir.RemoveXattr(filepath.Base(path), attr))
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
