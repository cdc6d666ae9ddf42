package interchange

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/restore"
	"github.com/livemigrate/migrate/runtime"
)

// ways are how a dump can leave memory out; the first is what it takes here by itself.
var ways = []checkpoint.Way{"", checkpoint.WaySkip, checkpoint.WayLazy}

// memories is a program with private memory of every kind, which it compares again and again: see its source.
func (h *host) memories(change func(*specs.Spec)) (bundle string) {
	h.t.Helper()
	bundle = h.bundle("b", change, "memories", "16")
	cmd := exec.Command("go", "build", "-o", filepath.Join(bundle, "rootfs/bin/memories"), "./testdata/memories")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%v: %s", err, text)
	}
	return bundle
}

// leave begins a dump without memory, the given way.
func (h *host) leave(c *container, o checkpoint.Options) *checkpoint.Held {
	h.t.Helper()
	o.LeaveMemory = true
	held, err := checkpoint.Begin(h.t.Context(), c.Container, &o)
	if err != nil {
		h.t.Fatal(err)
	}
	if o.Way != "" && held.Way() != o.Way {
		h.t.Errorf("way %q, not %q", held.Way(), o.Way)
	}
	return held
}

func TestMemoryThatWasLeftIsFilledIn(t *testing.T) {
	for _, way := range ways {
		t.Run("way "+string(way), func(t *testing.T) {
			h := newHost(t)
			r := newRunc(h)
			bundle := h.memories(byID(nil))
			c := h.start(h.unique("left"), bundle, nil)
			c.expect(t, "tick 3\n")
			pid := c.InitPid()
			held := h.leave(c, checkpoint.Options{ImagesDir: h.images("1"), Way: way})
			var pages uint64
			for _, left := range held.Left() {
				for _, r := range left.Pages {
					pages += r.Pages
				}
			}
			// Half of 16 MB, 8 MB and more here, half of 4 MB and 8 MB in each of the children.
			if len(held.Left()) != 3 || pages < 36<<20>>12 || pages > 60<<20>>12 {
				t.Errorf("%d pages of %d processes are left", pages, len(held.Left()))
			}
			if size := sizeOf(t, h.images("1"), "pages-*.img"); size > 24<<20 {
				t.Errorf("the images hold %d MB of pages", size>>20)
			}
			if err := image.CheckResolved(h.images("1")); err != nil {
				t.Error(err)
			}
			if err := held.Fill(); err != nil {
				t.Fatal(err)
			}
			if err := held.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			reap(pid)
			if !gone(pid) {
				t.Errorf("%d is alive after a checkpoint", pid)
			}
			if err := c.Delete(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			ours, err := h.restore(h.unique("ours"), bundle, h.images("1"), nil)
			if err != nil {
				t.Fatal(err)
			}
			ours.goesOn(t)
			if err := ours.Delete(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			reap(ours.State().InitProcessPid)
			out := r.detached(h.unique("theirs"), "restore", "-d", "--image-path", h.images("1"), "--bundle", bundle)
			(&container{output: out}).goesOn(t)
		})
	}
}

// sizeOf is what files take.
func sizeOf(t *testing.T, dir, pattern string) int64 {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %v", pattern, err)
	}
	var size int64
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	return size
}

func TestContainerRunsOnAfterItsMemoryWasLeft(t *testing.T) {
	for _, way := range ways {
		t.Run("way "+string(way), func(t *testing.T) {
			h := newHost(t)
			c := h.start("left", h.memories(nil), nil)
			c.expect(t, "tick 3\n")
			if err := h.leave(c, checkpoint.Options{ImagesDir: h.images("1"), Way: way}).Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.goesOn(t)
			held := h.leave(c, checkpoint.Options{ImagesDir: h.images("2"), Way: way, LeaveRunning: true})
			if err := errors.Join(held.Fill(), held.Commit(t.Context())); err != nil {
				t.Fatal(err)
			}
			c.goesOn(t)
			if left, err := filepath.Glob(filepath.Join(h.images("2"), ".claims*")); err != nil || len(left) > 0 {
				t.Errorf("%q in the images, %v", left, err)
			}
			if err := c.Delete(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			reap(c.State().InitProcessPid)
			again, err := h.restore("left", c.Bundle(), h.images("2"), nil)
			if err != nil {
				t.Fatal(err)
			}
			again.goesOn(t)
		})
	}
}

// With children, threads, connections and shared memory; in a user namespace too.
func TestProcessTreeComesBackWithMemoryThatWasLeft(t *testing.T) {
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	worlds := map[string]func(*specs.Spec){
		"plain": nil,
		"user namespace": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
		},
	}
	for name, change := range worlds {
		for _, way := range ways[1:] {
			t.Run(name+", way "+string(way), func(t *testing.T) {
				h := newHost(t)
				bundle := h.bundle("b", func(s *specs.Spec) {
					s.Process.Env = append(s.Process.Env, "GODEBUG=multipathtcp=0")
					if change != nil {
						change(s)
					}
				}, "busy")
				h.busy(bundle)
				if change != nil {
					h.run("chown", "-R", "100000:100000", filepath.Join(bundle, "rootfs"))
				}
				c := h.start("busy", bundle, nil)
				c.expect(t, "round 3: all well\n")
				o := checkpoint.Options{TCPEstablished: true, FileLocks: true, LeaveMemory: true, Way: way}
				for range 2 {
					c = h.cycle(c, o, nil)
					if text := c.expect(t, "all well\n"); strings.Contains(text, "lost") {
						t.Error(text)
					}
					h.run("rm", "-r", h.images("busy"))
				}
			})
		}
	}
}

// CRIU saves no two processes with one memory. It finds out when they stand still, and they run on.
func TestProcessesWithOneMemoryAreRefusedAndRunOn(t *testing.T) {
	for _, way := range ways[1:] {
		t.Run("way "+string(way), func(t *testing.T) {
			h := newHost(t)
			bundle := h.bundle("b", nil, "shared")
			h.run(testutil.Command(t, "gcc"), "-static", "-O", "-o", filepath.Join(bundle, "rootfs/bin/shared"), "testdata/shared.c")
			c := h.start("shared", bundle, nil)
			c.expect(t, "tick 3\n")
			_, err := checkpoint.Begin(t.Context(), c.Container, &checkpoint.Options{
				ImagesDir: h.images("1"), LeaveMemory: true, Way: way,
			})
			if failure, ok := errors.AsType[*checkpoint.Error](err); !ok || !strings.Contains(failure.Cause, "VM id") {
				t.Errorf("%v", err)
			}
			c.goesOn(t)
		})
	}
}

func TestClientKeepsItsConnectionThoughMemoryWasLeft(t *testing.T) {
	h := newHost(t)
	h.bridge("ixbr4", "10.79.4.1/24")
	bundle := h.redisBundle(nil)
	c := h.start("redis", bundle, network("ixbr4", "10.79.4.5/24"))
	client := dialCounter(t, "10.79.4.5:6379")
	for _, way := range ways[1:] {
		o := checkpoint.Options{ImagesDir: h.images("1"), TCPEstablished: true, Way: way}
		if err := h.leave(c, o).Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		client.incr(t)
		o.LeaveRunning = true
		if err := h.leave(c, o).Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		client.incr(t)
		c = h.cycle(c, checkpoint.Options{TCPEstablished: true, LeaveMemory: true, Way: way}, nil)
		client.incr(t)
	}
}

// The parasites of a CRIU that was killed are still in the processes, whatever the way.
func TestKilledCRIUThatLeftMemoryIsRecovered(t *testing.T) {
	for _, way := range ways[1:] {
		t.Run("way "+string(way), func(t *testing.T) {
			h := newHost(t)
			c := h.start("left", h.memories(nil), nil)
			c.expect(t, "tick 3\n")
			held := h.leave(c, checkpoint.Options{ImagesDir: h.images("1"), Way: way})
			if err := syscall.Kill(held.CRIUPid(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
			if status, err := c.Status(); err != nil || status != runtime.Paused {
				t.Fatalf("status %v, %v: a killed CRIU lets the container run", status, err)
			}
			if err := held.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.goesOn(t)
		})
	}
}

// CRIU's own daemon serves what was filled in.
func TestFilledImagesAreRestoredLazily(t *testing.T) {
	for _, way := range ways[1:] {
		t.Run("way "+string(way), func(t *testing.T) {
			h := newHost(t)
			limit, err := os.ReadFile("/proc/sys/fs/pipe-max-size")
			bytes, _ := strconv.Atoi(strings.TrimSpace(string(limit)))
			testutil.Need(t, err == nil && bytes >= 4<<20, "fs.pipe-max-size of 4 MiB")
			c := h.start("left", h.memories(nil), nil)
			c.expect(t, "tick 3\n")
			again := h.cycle(c, checkpoint.Options{LeaveMemory: true, Way: way}, func(o *restore.Options) {
				o.LazyPages, o.TrustPages, o.WorkDir = true, true, filepath.Join(h.dir, "work")
				if err := os.Mkdir(o.WorkDir, 0o700); err != nil {
					t.Fatal(err)
				}
				daemon := exec.Command(os.Getenv(criu.Environment), "lazy-pages", "-D", o.ImagesDir, "-W", o.WorkDir, "-o", "lazy.log", "-v4")
				if err := daemon.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					_ = daemon.Process.Kill()
					_ = daemon.Wait()
				})
			})
			again.goesOn(t)
			log, err := os.ReadFile(filepath.Join(h.dir, "work/lazy.log"))
			if err != nil || !strings.Contains(string(log), "uffd") {
				t.Errorf("the daemon was not asked: %v", err)
			}
		})
	}
}
