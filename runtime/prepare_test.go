package runtime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestPreparedPlaceIsDiscardedWhole(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	source := t.TempDir()
	p := testPlan(t, "true", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data/deep", Source: source, Type: "bind", Options: []string{"rbind"}})
	})
	prepared, err := r.Prepare(ctx, testID(t), p, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Prepare(ctx, testID(t), p, nil); !errors.Is(err, ErrExists) {
		t.Errorf("a second prepare of the id: %v", err)
	}
	if _, err := r.Create(ctx, testID(t), p, nil); !errors.Is(err, ErrExists) {
		t.Errorf("create of a prepared id: %v", err)
	}
	if c, err := r.Load(testID(t)); err != nil {
		t.Errorf("what has been prepared cannot be found: %v", err)
	} else {
		wantStatus(t, c, Stopped)
	}
	for _, path := range []string{"data/deep", "bin/busybox", "dev", "proc"} {
		if _, err := os.Stat(filepath.Join(prepared.Root(), path)); err != nil {
			t.Error(err)
		}
	}
	dirs := prepared.CgroupPaths()
	if len(dirs) == 0 {
		t.Error("no cgroups")
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
	list, err := prepared.ExternalMounts()
	if err != nil || len(list) == 0 {
		t.Errorf("external mounts %v, error %v", list, err)
	}
	for range 2 {
		if err := prepared.Discard(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if left := mounts(t, r.Root()); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("cgroup %s is left", dir)
		}
	}
	if _, err := os.Stat(filepath.Join(p.Rootfs, "bin/busybox")); err != nil {
		t.Errorf("the container's files are gone: %v", err)
	}
}

// Where / is shared, as systemd makes it, a container's root is a slave of it, and CRIU restores that only from a mount
// that is not private.
func TestPreparedRootCanTakeWhatWasShared(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	p := testPlan(t, "true")
	shared := t.TempDir()
	if err := unix.Mount(p.Rootfs, shared, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(shared, unix.MNT_DETACH) })
	if err := unix.Mount("", shared, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	p.Rootfs = shared
	prepared, err := r.Prepare(ctx, testID(t), p, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = prepared.Discard(ctx) })
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(prepared.Root()))
	if err != nil || len(mounts) != 1 {
		t.Fatalf("the root is not mounted: %v, %v", mounts, err)
	}
	if optional := mounts[0].Optional; !strings.Contains(optional, "shared:") || !strings.Contains(optional, "master:") {
		t.Errorf("the root is %q, want a slave with peers of its own", optional)
	}
	if err := unix.Mount("tmpfs", filepath.Join(prepared.Root(), "tmp"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if there, err := mountinfo.Mounted(filepath.Join(shared, "tmp")); err != nil || there {
		t.Errorf("a mount of the container's shows up in its bundle (%v)", err)
	}
}

func TestAdoptedProcessIsAContainer(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	pidFile := filepath.Join(t.TempDir(), "pid")
	p := testPlan(t, "true")
	prepared, err := r.Prepare(ctx, testID(t), p, &PrepareOptions{PidFile: pidFile})
	if err != nil {
		t.Fatal(err)
	}
	process := sleeper(t)
	if err := prepared.PlaceInit(process.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := prepared.RunHooks(ctx, process.Process.Pid); err != nil {
		t.Fatal(err)
	}
	targets := []string{"/dev/null", "pipe:[5]", "pipe:[5]"}
	c, err := prepared.Adopt(ctx, process.Process.Pid, &AdoptOptions{ExternalDescriptors: targets})
	if err != nil {
		t.Fatal(err)
	}
	if err := prepared.Resumed(ctx); err != nil {
		t.Fatal(err)
	}
	if err := prepared.Discard(ctx); err != nil { // too late to undo anything
		t.Fatal(err)
	}
	again, err := r.Load(c.ID())
	if err != nil {
		t.Fatal(err)
	}
	wantStatus(t, again, Running)
	if !inCgroup(t, again, process.Process.Pid) {
		t.Error("init is not in the container's cgroup")
	}
	if got := again.State().ExternalDescriptors; len(got) != 3 || got[1] != targets[1] {
		t.Errorf("descriptors are %v", got)
	}
	if pid, _ := os.ReadFile(pidFile); string(pid) != jsonOf(t, process.Process.Pid) {
		t.Errorf("pid file holds %q", pid)
	}
	if left := mounts(t, r.Root()); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
	if err := again.Delete(ctx, true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(p.Rootfs, "bin/busybox")); err != nil {
		t.Errorf("the container's files are gone: %v", err)
	}
}

// CRIU can fail after the state is written, up to the moment the processes run.
func TestAdoptedContainerCanStillBeDiscarded(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	p := testPlan(t, "true")
	prepared, err := r.Prepare(ctx, testID(t), p, nil)
	if err != nil {
		t.Fatal(err)
	}
	process := sleeper(t)
	if err := prepared.PlaceInit(process.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := prepared.Adopt(ctx, process.Process.Pid, nil); err != nil {
		t.Fatal(err)
	}
	if err := prepared.Discard(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Load(testID(t)); !errors.Is(err, ErrNotExist) {
		t.Errorf("the container is still there: %v", err)
	}
}

func TestPrepareThatFailsLeavesNothing(t *testing.T) {
	r := testRuntime(t)
	p := testPlan(t, "true", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Source: "/nonexistent/source", Type: "bind", Options: []string{"bind"}})
	})
	if _, err := r.Prepare(context.Background(), testID(t), p, nil); err == nil {
		t.Fatal("no error")
	}
	if left := mounts(t, r.Root()); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
}

// A keeper that is killed between Prepare and Adopt leaves its place behind; deleting that must not follow the mount.
func TestDeleteOfAnAbandonedPlaceKeepsTheFiles(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	p := testPlan(t, "true")
	for name, end := range map[string]func() error{
		"delete": func() error {
			c, err := r.Load(testID(t))
			if err != nil {
				return err
			}
			return c.Delete(ctx, false)
		},
		"remove": func() error { return r.Remove(ctx, testID(t), true) },
	} {
		prepared, err := r.Prepare(ctx, testID(t), p, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := end(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(p.Rootfs, "bin/busybox")); err != nil {
			t.Errorf("%s: the container's files are gone: %v", name, err)
		}
		if left := mounts(t, r.Root()); len(left) > 0 {
			t.Errorf("%s: mounts are left: %v", name, left)
		}
		if err := prepared.Discard(ctx); err != nil { // the cgroups, where remove has left them
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPreparedNetworkHasNoLinkWithoutABridge(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	host, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	p := testPlan(t, "true")
	p.Network = &Network{Bridge: "brmissing", Addresses: []string{"10.9.8.7/24"}}
	err = netns.Do(host, func() error {
		_, err := r.Prepare(ctx, testID(t), p, nil)
		return err
	})
	if err == nil {
		t.Fatal("no error")
	}
	if left := mounts(t, r.Root()); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
}
