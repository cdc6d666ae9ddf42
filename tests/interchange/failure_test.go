package interchange

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/restore"
	"github.com/livemigrate/migrate/runtime"
)

// checkpointed is a bundle and the images of a container of it that is gone.
func (h *host) checkpointed(id string, change func(*specs.Spec), args ...string) (bundle, images string) {
	h.t.Helper()
	bundle = h.bundle("b", change, args...)
	c := h.start(id, bundle, nil)
	c.expect(h.t, "tick 3\n")
	pid := c.InitPid()
	if err := checkpoint.Run(h.t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images(id)}); err != nil {
		h.t.Fatal(err)
	}
	reap(pid)
	if err := c.Delete(h.t.Context(), false); err != nil {
		h.t.Fatal(err)
	}
	return bundle, h.images(id)
}

// nothingLeft: no state, no cgroup, no mount, no child of this process.
func (h *host) nothingLeft(id string) {
	h.t.Helper()
	if _, err := h.rt.Load(id); !errors.Is(err, runtime.ErrNotExist) {
		h.t.Errorf("state of %s is left: %v", id, err)
	}
	if left, _ := filepath.Glob(filepath.Join(h.root, "*")); len(left) > 0 {
		h.t.Errorf("left in the root: %v", left)
	}
	if left := testutil.Cgroups(h.unique("*")); len(left) > 0 {
		h.t.Errorf("cgroups are left: %v", left)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		h.t.Fatal(err)
	}
	if strings.Contains(string(mounts), h.dir) {
		h.t.Errorf("mounts are left: %s", mounts)
	}
	if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
		h.t.Errorf("child %d is left: %v", pid, err)
	}
}

func TestDamagedImagesAreRefusedByName(t *testing.T) {
	h := newHost(t)
	bundle, images := h.checkpointed("count", nil, "sh", "-c", counting)
	pages, err := filepath.Glob(filepath.Join(images, "pages-*.img"))
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	var biggest string
	for _, p := range pages {
		if a, b := size(t, p), size(t, filepath.Join(images, biggest)); biggest == "" || a > b {
			biggest = filepath.Base(p)
		}
	}
	tests := []struct {
		name, file string
		damage     func(path string) error
	}{
		{"missing", "core-1.img", os.Remove},
		{"cut", "mm-1.img", func(path string) error { return os.Truncate(path, size(t, path)-1) }},
		{"altered", "files.img", func(path string) error { return flip(path, 20) }},
		{"pages cut", biggest, func(path string) error { return os.Truncate(path, size(t, path)-4096) }},
		// Only this one is found after CRIU has made the tree.
		{"pages altered", biggest, func(path string) error { return flip(path, size(t, path)-1) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			copied := filepath.Join(h.dir, "copy")
			h.run("cp", "-a", images, copied)
			defer func() { h.run("rm", "-r", copied) }()
			if err := test.damage(filepath.Join(copied, test.file)); err != nil {
				t.Fatal(err)
			}
			_, err := h.restore("count", bundle, copied, nil)
			if !errors.Is(err, restore.ErrDamaged) || !strings.Contains(err.Error(), test.file) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			h.nothingLeft("count")
		})
	}
	if _, err := h.restore("count", bundle, filepath.Join(h.dir, "b"), nil); !errors.Is(err, restore.ErrNoCheckpoint) {
		t.Errorf("a directory without images: %v", err)
	}
	h.nothingLeft("count")
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func flip(path string, offset int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, offset); err != nil {
		return errors.Join(err, f.Close())
	}
	b[0] ^= 0xff
	_, err = f.WriteAt(b, offset)
	return errors.Join(err, f.Close())
}

func TestFailedRestoreSaysWhyAndLeavesNothing(t *testing.T) {
	h := newHost(t)
	bundle, images := h.checkpointed("count", nil, "sh", "-c", counting)
	// The program has changed since: CRIU would execute other code.
	if err := os.Truncate(filepath.Join(bundle, "rootfs/bin/busybox"), 5); err != nil {
		t.Fatal(err)
	}
	_, err := h.restore("count", bundle, images, nil)
	failure, ok := errors.AsType[*restore.Error](err)
	if !ok || failure.Hint == "" || !strings.Contains(failure.Cause, "busybox") {
		t.Errorf("%v", err)
	}
	h.nothingLeft("count")
}

func TestFailedHookStopsTheRestore(t *testing.T) {
	h := newHost(t)
	bundle, images := h.checkpointed("count", nil, "sh", "-c", counting)
	spec, err := runtime.LoadSpec(bundle)
	if err != nil {
		t.Fatal(err)
	}
	spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo no such device >&2; exit 3"}}}}
	h.writeSpec(bundle, spec)
	if _, err := h.restore("count", bundle, images, nil); err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("%v", err)
	}
	h.nothingLeft("count")
}

// gate brings a container up to its gate.
func (h *host) gate(id, bundle, images string) (*runtime.Prepared, *restore.Gate) {
	h.t.Helper()
	spec, err := runtime.LoadSpec(bundle)
	if err != nil {
		h.t.Fatal(err)
	}
	plan, err := runtime.Parse(bundle, spec, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	o := &restore.Options{ImagesDir: images}
	p, err := restore.Prepare(h.t.Context(), h.rt, id, plan, nil, o)
	if err != nil {
		h.t.Fatal(err)
	}
	if o.Client, err = restore.Start(h.t.Context(), p, o); err != nil {
		h.t.Fatal(err)
	}
	g, err := restore.Begin(h.t.Context(), p, o)
	if err != nil {
		h.t.Fatal(err)
	}
	return p, g
}

func TestGateThatIsNotOpenedLeavesNothing(t *testing.T) {
	failed := errors.New("the journal is full")
	ends := []struct {
		name string
		end  func(t *testing.T, g *restore.Gate)
	}{
		{"aborted", func(t *testing.T, g *restore.Gate) {
			if err := errors.Join(g.Abort(t.Context()), g.Abort(t.Context())); err != nil {
				t.Error(err)
			}
		}},
		{"criu killed", func(t *testing.T, g *restore.Gate) {
			if err := syscall.Kill(g.CRIUPid(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if err := g.Abort(t.Context()); err != nil {
				t.Error(err)
			}
		}},
		{"criu killed before it is opened", func(t *testing.T, g *restore.Gate) {
			if err := syscall.Kill(g.CRIUPid(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
			if _, err := g.Open(t.Context(), nil); err == nil {
				t.Error("opened without criu")
			}
		}},
		{"running failed", func(t *testing.T, g *restore.Gate) {
			if _, err := g.Open(t.Context(), func() error { return failed }); !errors.Is(err, failed) {
				t.Errorf("%v", err)
			}
		}},
		{"cancelled", func(t *testing.T, g *restore.Gate) {
			ctx, cancel := context.WithCancel(t.Context())
			if _, err := g.Open(ctx, func() error { cancel(); return ctx.Err() }); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		}},
	}
	for _, private := range []bool{true, false} {
		h := newHost(t)
		change := func(s *specs.Spec) {
			if !private { // then the root's children do not die with it
				s.Linux.Namespaces = s.Linux.Namespaces[1:]
			}
		}
		if !private {
			// Their orphans come here: pid 1 may leave them as zombies for a while, and their pids are needed.
			if err := process.BecomeSubreaper(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				const setChildSubreaper = 36 // PR_SET_CHILD_SUBREAPER
				_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 0, 0)
			})
		}
		bundle, images := h.checkpointed("count", change, "sh", "-c", "sleep 1000 & "+counting)
		for _, end := range ends {
			t.Run(end.name, func(t *testing.T) {
				reapOrphans()
				p, g := h.gate("count", bundle, images)
				if gone(g.Pid()) {
					t.Error("no process at the gate")
				}
				end.end(t, g)
				if !gone(g.Pid()) {
					t.Errorf("process %d is left", g.Pid())
				}
				if err := p.Discard(t.Context()); err != nil {
					t.Error(err)
				}
				reapOrphans()
				h.nothingLeft("count")
			})
		}
	}
}

func reapOrphans() {
	for {
		if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
			return
		}
	}
}

func TestOldCheckpointInTheDirectoryIsReplaced(t *testing.T) {
	h := newHost(t)
	c := h.start("count", h.bundle("b", nil, "sh", "-c", counting), nil)
	c.expect(t, "tick 3\n")
	if err := os.MkdirAll(h.images("1"), 0o755); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(h.images("1"), "core-4711.img")
	if err := os.WriteFile(stale, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1"), LeaveRunning: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Error("a file of the old checkpoint is left")
	}
	set, err := image.Open(h.images("1"))
	if err != nil {
		t.Fatal(err)
	}
	if set.Manifest == nil || set.Manifest.CRIU == "" || set.Manifest.Kernel == "" {
		t.Errorf("manifest %+v", set.Manifest)
	}
	if got, want := h.run("stat", "-c", "%a", h.images("1")), "755\n"; got != want {
		t.Errorf("the directory's mode is %s", got)
	}
	files, err := os.ReadDir(h.images("1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 && f.Name() != "stats-dump" { // CRIU's times, which come last
			t.Errorf("others read %s: %v", f.Name(), info.Mode())
		}
	}
}

func TestCancelAtAnyMomentOfARestoreLeavesNothing(t *testing.T) {
	h := newHost(t)
	bundle, images := h.checkpointed("count", nil, "sh", "-c", "sleep 1000 & "+counting)
	spec, err := runtime.LoadSpec(bundle)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := runtime.Parse(bundle, spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	for patience := 2 * time.Millisecond; ; patience += patience / 2 {
		o := &restore.Options{ImagesDir: images}
		p, err := restore.Prepare(t.Context(), h.rt, "count", plan, nil, o)
		if err != nil {
			t.Fatal(err)
		}
		if o.Client, err = restore.Start(t.Context(), p, o); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		gate, err := restore.Begin(ctx, p, o)
		cancel()
		if err == nil {
			err = errors.Join(gate.Abort(t.Context()), p.Discard(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			h.nothingLeft("count")
			t.Logf("a restore takes less than %v", patience)
			return
		}
		if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "\n") {
			t.Errorf("after %v: %v", patience, err)
		}
		if err := p.Discard(t.Context()); err != nil {
			t.Error(err)
		}
		h.nothingLeft("count")
	}
}

func TestCancelAtAnyMomentOfACheckpointLetsItRunOn(t *testing.T) {
	h := newHost(t)
	c := h.start("count", h.bundle("b", nil, "sh", "-c", "sleep 1000 & "+counting), nil)
	for patience := 2 * time.Millisecond; ; patience += patience / 2 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		held, err := checkpoint.Begin(ctx, c.Container, &checkpoint.Options{ImagesDir: h.images("1")})
		cancel()
		if err == nil {
			if err := held.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.expect(t, "tick")
			t.Logf("a checkpoint takes less than %v", patience)
			return
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", patience, err)
		}
		c.expect(t, "tick")
	}
}
