package interchange

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/restore"
	"github.com/livemigrate/migrate/runtime"
)

const counting = `i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.05; done`

// restored is the container from the images, in the place of one that is deleted.
func (h *host) restore(id, bundle, images string, change func(*restore.Options)) (*container, error) {
	h.t.Helper()
	spec, err := runtime.LoadSpec(bundle)
	if err != nil {
		h.t.Fatal(err)
	}
	plan, err := runtime.Parse(bundle, spec, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	r, w, stdin := h.pipes()
	defer w.Close()
	defer stdin.Close()
	o := &restore.Options{ImagesDir: images, Stdin: stdin, Stdout: w, Stderr: w}
	if change != nil {
		change(o)
	}
	c, err := restore.Run(h.t.Context(), h.rt, id, plan, nil, o)
	return &container{Container: c, output: r}, err
}

func TestContainerGoesOnWhereItWas(t *testing.T) {
	h := newHost(t)
	bundle := h.bundle("b", nil, "sh", "-c", counting)
	c := h.start("count", bundle, nil)
	c.expect(t, "tick 3\n")
	pid := c.InitPid()
	if err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1")}); err != nil {
		t.Fatal(err)
	}
	reap(pid)
	if !gone(pid) {
		t.Errorf("%d is alive after a checkpoint", pid)
	}
	if err := c.Delete(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	again, err := h.restore("count", bundle, h.images("1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	again.goesOn(t)
	if status, err := again.Status(); err != nil || status != runtime.Running {
		t.Errorf("status %v, %v", status, err)
	}
}

// CRIU's helpers and the container's next processes must not take numbers that are still to be restored.
func TestPidsGoOnWhereTheyWere(t *testing.T) {
	h := newHost(t)
	bundle := h.bundle("b", nil, "sh", "-c", `i=0; while [ $i -lt 300 ]; do (:); i=$((i+1)); done; sleep 1000 & echo sleeper $!
		echo tick 3; read line </tmp/go; sh -c 'echo born $$'; echo done`)
	if err := syscall.Mkfifo(filepath.Join(bundle, "rootfs/tmp/go"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := h.start("pids", bundle, nil)
	before := c.expect(t, "tick 3\n")
	c = h.cycle(c, checkpoint.Options{}, nil)
	if err := os.WriteFile(filepath.Join(bundle, "rootfs/tmp/go"), []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	var sleeper, born int
	if _, err := fmt.Sscanf(before[strings.Index(before, "sleeper"):], "sleeper %d", &sleeper); err != nil {
		t.Fatal(err)
	}
	after := c.expect(t, "done\n")
	if _, err := fmt.Sscanf(after[strings.Index(after, "born"):], "born %d", &born); err != nil {
		t.Fatal(err)
	}
	if sleeper < 300 || born <= sleeper {
		t.Errorf("a process born after %d is %d", sleeper, born)
	}
}

// A mask that were the host's own /dev/null would give its rights to the container's root.
func TestMasksComeBackAsTheContainersOwn(t *testing.T) {
	h := newHost(t)
	bundle := h.bundle("b", func(s *specs.Spec) {
		caps := s.Process.Capabilities
		for _, set := range []*[]string{&caps.Bounding, &caps.Effective, &caps.Permitted} {
			*set = append(slices.Clone(*set), "CAP_CHOWN", "CAP_FOWNER")
		}
	}, "sh", "-c", `echo tick 3; read line </tmp/go; cat /proc/keys; chmod 600 /proc/keys && chown 7 /proc/timer_list && echo done`)
	if err := syscall.Mkfifo(filepath.Join(bundle, "rootfs/tmp/go"), 0o600); err != nil {
		t.Fatal(err)
	}
	host, err := os.Stat(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	c := h.start("masked", bundle, nil)
	c.expect(t, "tick 3\n")
	for range 2 { // the second time they are on what the first has made
		c = h.cycle(c, checkpoint.Options{}, nil)
		h.run("rm", "-r", h.images("masked"))
		for _, mask := range c.masks(t) {
			info, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", c.InitPid(), mask.Mountpoint))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode()&os.ModeCharDevice == 0 || os.SameFile(info, host) {
				t.Fatalf("%s is %v, the host's own: %v", mask.Mountpoint, info.Mode(), os.SameFile(info, host))
			}
			if !strings.Contains(mask.Options, "nosuid") {
				t.Errorf("%s is mounted %s", mask.Mountpoint, mask.Options)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(bundle, "rootfs/tmp/go"), []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	if text := c.expect(t, "done\n"); text != "done\n" {
		t.Errorf("what is masked says %q", text)
	}
	after, err := os.Stat(os.DevNull)
	if err != nil || after.Mode() != host.Mode() || after.Sys().(*syscall.Stat_t).Uid != host.Sys().(*syscall.Stat_t).Uid {
		t.Errorf("the host's null device is %v now, %v", after, err)
	}
}

// masks are the mounts over masked files.
func (c *container) masks(t *testing.T) []*mountinfo.Info {
	t.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", c.InitPid()))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	list, err := mountinfo.GetMountsFromReader(file, func(info *mountinfo.Info) (skip, stop bool) {
		return info.Root != "/null", false
	})
	if err != nil || len(list) < 2 {
		t.Fatalf("masks are %v, %v", list, err)
	}
	return list
}

// The source of a bind lies in the root, where the image has a link to the host.
func TestSourceInTheRootComesBackFromTheRoot(t *testing.T) {
	h := newHost(t)
	host := filepath.Join(h.dir, "payload")
	bundle := h.bundle("b", nil, "sh", "-c", `while sleep 0.1; do cat /data; done`)
	for path, text := range map[string]string{host: "the host's\n", filepath.Join(bundle, "rootfs", host): "the root's\n"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(host, filepath.Join(bundle, "rootfs/vol")); err != nil {
		t.Fatal(err)
	}
	spec, err := runtime.LoadSpec(bundle)
	if err != nil {
		t.Fatal(err)
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: "/data", Type: "bind", Source: filepath.Join(bundle, "rootfs/vol"), Options: []string{"bind"},
	})
	h.writeSpec(bundle, spec)
	c := h.start("source", bundle, nil)
	c.expect(t, "the root's\n")
	if text := h.cycle(c, checkpoint.Options{}, nil).expect(t, "\n"); strings.Contains(text, "the host's") {
		t.Errorf("the container reads %q", text)
	}
}

func TestRollbackLetsItRunOn(t *testing.T) {
	h := newHost(t)
	c := h.start("held", h.bundle("b", nil, "sh", "-c", counting), nil)
	c.expect(t, "tick 3\n")
	held, err := checkpoint.Begin(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1")})
	if err != nil {
		t.Fatal(err)
	}
	if status, err := c.Status(); err != nil || status != runtime.Paused {
		t.Errorf("status %v while held, %v", status, err)
	}
	if err := held.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.goesOn(t)
}

func TestCancelledCheckpointLetsItRunOn(t *testing.T) {
	h := newHost(t)
	c := h.start("cancelled", h.bundle("b", nil, "sh", "-c", counting), nil)
	c.expect(t, "tick 3\n")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := checkpoint.Begin(ctx, c.Container, &checkpoint.Options{
		ImagesDir:    h.images("1"),
		BeforeFreeze: func(context.Context) error { cancel(); return nil },
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	c.goesOn(t)
}

func TestPausedContainerStaysPaused(t *testing.T) {
	h := newHost(t)
	bundle := h.bundle("b", nil, "sh", "-c", counting)
	c := h.start("paused", bundle, nil)
	c.expect(t, "tick 3\n")
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	stays := func(what string) {
		t.Helper()
		if status, err := c.Status(); err != nil || status != runtime.Paused {
			t.Errorf("after %s: %v, %v", what, status, err)
		}
	}
	if err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1"), LeaveRunning: true}); err != nil {
		t.Fatal(err)
	}
	stays("a checkpoint that leaves it")
	held, err := checkpoint.Begin(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("2")})
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	stays("a rollback")
	if err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("3")}); err != nil {
		t.Fatal(err)
	}
	reap(c.State().InitProcessPid)
	if err := c.Delete(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	again, err := h.restore("paused", bundle, h.images("3"), nil)
	if err != nil {
		t.Fatal(err)
	}
	again.goesOn(t) // a restore lets it run, as runc's does
}
