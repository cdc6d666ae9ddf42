package fanotify

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/fs"
	"github.com/livemigrate/migrate/internal/testutil"
)

func TestEveryChangeIsSeen(t *testing.T) {
	testutil.Root(t)
	root := t.TempDir()
	g, err := WatchFilesystem(root)
	testutil.Need(t, err == nil, "fanotify on a filesystem")
	defer g.Close()
	dir, err := fs.HandleOf(root)
	if err != nil {
		t.Fatal(err)
	}
	seen := func() map[string]uint64 {
		t.Helper()
		got := map[string]uint64{}
		err := g.Drain(func(e *Event) {
			if e.Entry.Dir == dir {
				got[e.Entry.Name] |= e.Mask
			}
			if e.From.Dir == dir {
				got["from "+e.From.Name] |= e.Mask
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	at := func(name string) string { return filepath.Join(root, name) }
	for _, step := range []struct {
		what string
		do   func() error
		name string
		mask uint64
	}{
		{"create", func() error { return os.WriteFile(at("f"), []byte("x"), 0o600) }, "f", Created | Modified | Closed},
		{"chmod", func() error { return os.Chmod(at("f"), 0o640) }, "f", Attrib},
		{"truncate", func() error { return os.Truncate(at("f"), 9) }, "f", Modified},
		{"link", func() error { return os.Link(at("f"), at("g")) }, "g", Created},
		{"rename", func() error { return os.Rename(at("g"), at("h")) }, "h", MovedTo | Renamed},
		{"unlink", func() error { return os.Remove(at("h")) }, "h", Deleted},
		{"mkdir", func() error { return os.Mkdir(at("d"), 0o700) }, "d", Created | OnDir},
		{"chmod root", func() error { return os.Chmod(root, 0o700) }, ".", Attrib | OnDir},
		{"rename dir", func() error { return os.Rename(at("d"), at("e")) }, "from d", Renamed | OnDir},
		{"symlink", func() error { return os.Symlink(strings.Repeat("x", 20), at("s")) }, "s", Created},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got := seen()[step.name]; got&step.mask != step.mask {
			t.Errorf("%s: mask %#x lacks %#x", step.what, got, step.mask&^got)
		}
	}
}

func TestCloseWakesWait(t *testing.T) {
	testutil.Root(t)
	root := t.TempDir()
	g, err := WatchFilesystem(root)
	testutil.Need(t, err == nil, "fanotify on a filesystem")
	done := make(chan error, 1)
	go func() {
		for {
			if err := g.Wait(); err != nil {
				done <- err
				return
			}
			if err := g.Drain(func(*Event) {}); err != nil {
				done <- err
				return
			}
		}
	}()
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("Wait ended without an error")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 24))
	f.Fuzz(func(_ *testing.T, buf []byte) {
		_ = Parse(buf, func(*Event) {})
	})
}
