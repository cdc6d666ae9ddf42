package interchange

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/internal/image"
)

// Whatever a checkpoint fails of, the older one in its directory is what it was, nothing else is left, and the container runs on.
func TestOlderCheckpointOutlivesOneThatFailed(t *testing.T) {
	h := newHost(t)
	bundle := h.memories(nil)
	c := h.start("older", bundle, nil)
	c.expect(t, "tick 3\n")
	images := h.images("older")
	if err := os.Mkdir(images, 0o700); err != nil {
		t.Fatal(err)
	}
	h.run("mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", images)
	defer h.run("umount", images)
	if err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: images, LeaveRunning: true}); err != nil {
		t.Fatal(err)
	}
	// Another that builds on it.
	on := &checkpoint.Options{ImagesDir: h.images("on"), ParentPath: "../images-older", LeaveRunning: true}
	if err := checkpoint.Run(t.Context(), c.Container, on); err != nil {
		t.Fatal(err)
	}
	// From another place it is noticed only when it is to be restored.
	away, onIt := filepath.Join(h.dir, "away"), on.ImagesDir
	takeAway := func(*checkpoint.Options) {
		onIt = filepath.Join(away, "on")
		if err := errors.Join(os.Mkdir(away, 0o700), os.Rename(on.ImagesDir, onIt), os.Symlink(images, filepath.Join(away, "images-older"))); err != nil {
			t.Fatal(err)
		}
	}
	had, used := setOf(t, images), inUse(t, images)
	fill := func(context.Context) error {
		err := os.WriteFile(filepath.Join(images, "filler"), make([]byte, 150<<20), 0o600)
		if !errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("there was room: %w", err)
		}
		return nil
	}
	for _, f := range []struct {
		name   string
		size   uint64 // of the file system
		change func(o *checkpoint.Options)
		want   error
		text   string
	}{
		{"no such criu", 150 << 20, func(o *checkpoint.Options) { o.CRIU = "/nowhere/criu" }, nil, "/nowhere/criu"},
		{"parent that needs it", 150 << 20, func(o *checkpoint.Options) { o.ParentPath = "../images-on" }, nil, "would replace"},
		{"set that another needs", 150 << 20, nil, checkpoint.ErrNeeded, on.ImagesDir},
		{"room for one", used + 1<<20, takeAway, checkpoint.ErrNoRoom, "beside the older"},
		{"room ends", 150 << 20, func(o *checkpoint.Options) { o.BeforeFreeze = fill }, nil, ""},
	} {
		t.Run(f.name, func(t *testing.T) {
			h.run("mount", "-o", fmt.Sprintf("remount,size=%d", f.size), images)
			o := &checkpoint.Options{ImagesDir: images}
			if f.change != nil {
				f.change(o)
			}
			err := checkpoint.Run(t.Context(), c.Container, o)
			if err == nil || f.want != nil && !errors.Is(err, f.want) || !strings.Contains(err.Error(), f.text) {
				t.Errorf("%v", err)
			}
			t.Log(err)
			c.goesOn(t)
			_ = os.Remove(filepath.Join(images, "filler"))
			if got := setOf(t, images); got != had {
				t.Errorf("in the directory are %s, were %s", got, had)
			}
			if got := inUse(t, images); got > used+1<<20 {
				t.Errorf("%d bytes are taken, were %d", got, used)
			}
			verify(t, images)
			verifyChain(t, onIt)
		})
	}
	replace := func() error {
		return checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: images, LeaveRunning: true})
	}
	if err := replace(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.restore(h.unique("mixed"), bundle, onIt, nil); !errors.Is(err, image.ErrDamaged) {
		t.Errorf("on a parent that was made anew: %v", err)
	}
	before, err := os.Stat(images)
	if err != nil {
		t.Fatal(err)
	}
	c = h.cycle(c, checkpoint.Options{}, nil) // into the same directory
	c.goesOn(t)
	if after, err := os.Stat(images); err != nil || !os.SameFile(before, after) {
		t.Errorf("it is another directory: %v", err)
	}
	verify(t, images)
}

// setOf is the names in an image directory, less CRIU's logs.
func setOf(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if name := e.Name(); !strings.HasSuffix(name, ".log") && !strings.HasPrefix(name, "stats-") {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// inUse is how many bytes of a file system are taken.
func inUse(t *testing.T, dir string) uint64 {
	t.Helper()
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		t.Fatal(err)
	}
	return (stat.Blocks - stat.Bfree) * uint64(stat.Bsize)
}

// verifyChain holds a set and those below it against their manifests.
func verifyChain(t *testing.T, dir string) {
	t.Helper()
	set, err := image.Open(dir)
	if err == nil {
		err = set.VerifyPages(t.Context())
	}
	if err != nil {
		t.Error(err)
	}
}
