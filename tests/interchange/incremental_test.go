package interchange

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/sys/pagemap"
)

// A chain of what changed: a pre-dump, two snapshots of the job that runs on, and its end. Each is whole with those below it.
func TestChainOfIncrementsIsExact(t *testing.T) {
	const address = "10.79.8.5"
	h := newHost(t)
	r := newRunc(h)
	bundle := h.workload("ixin", address, "memory", "--rate", "500", "128")
	c := h.start(h.unique("job"), bundle, nil)
	unharmed(t, address)
	take := func(name, parent string, leave bool) int64 {
		t.Helper()
		o := &checkpoint.Options{ImagesDir: h.images(name), ParentPath: parent, LeaveRunning: leave, TCPEstablished: true}
		if err := checkpoint.Run(t.Context(), c.Container, o); err != nil {
			t.Fatal(err)
		}
		return sizeOf(t, h.images(name), "pages-*.img")
	}
	if err := checkpoint.PreDump(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("pre")}); err != nil {
		t.Fatal(err)
	}
	if size := sizeOf(t, h.images("pre"), "pages-*.img"); size < 128<<20 {
		t.Errorf("the pre-dump has %d MB", size>>20)
	}
	unharmed(t, address)
	// Pages written since: 2 MB a second, or some more where huge pages count as a whole.
	for _, step := range []struct{ name, parent string }{{"1", "../images-pre"}, {"2", "../images-1"}} {
		if size := take(step.name, step.parent, true); size > 96<<20 {
			t.Errorf("%s has %d MB", step.name, size>>20)
		}
		unharmed(t, address)
	}
	pid := c.InitPid()
	take("3", "../images-2", false)
	reap(pid)
	if err := c.Delete(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"1", "2", "3"} {
		set, err := image.Open(h.images(name))
		if err == nil {
			err = set.VerifyPages(t.Context())
		}
		if err != nil || len(set.Parents) == 0 {
			t.Errorf("%s: %v", name, err)
		}
		r.detached(h.unique(name), "restore", "-d", "--tcp-established", "--image-path", h.images(name), "--bundle", bundle)
		unharmed(t, address)
		r.do("delete", "-f", h.unique(name))
	}
	if _, err := h.restore(h.unique("ours"), bundle, h.images("3"), nil); err != nil {
		t.Fatal(err)
	}
	unharmed(t, address)
}

// A pre-dump on another has only what is new, too; CRIU's own where the kernel tracks memory.
func TestPreDumpsBuildOnEachOther(t *testing.T) {
	h := newHost(t)
	bundle := h.memories(nil)
	c := h.start("pre", bundle, nil)
	c.expect(t, "tick 3\n")
	for _, o := range []*checkpoint.Options{{ImagesDir: h.images("a")}, {ImagesDir: h.images("b"), ParentPath: "../images-a"}} {
		if err := checkpoint.PreDump(t.Context(), c.Container, o); err != nil {
			t.Fatal(err)
		}
	}
	if first, second := sizeOf(t, h.images("a"), "pages-*.img"), sizeOf(t, h.images("b"), "pages-*.img"); second >= first/2 {
		t.Errorf("%d bytes over %d", second, first)
	}
	c = h.cycle(c, checkpoint.Options{ParentPath: "../images-b"}, nil)
	c.goesOn(t)
}

// The root of a user namespace has to get at the parents, too.
func TestIncrementInAUserNamespaceComesBack(t *testing.T) {
	h := newHost(t)
	bundle := h.memories(func(s *specs.Spec) {
		maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
	})
	h.run("chown", "-R", "100000:100000", filepath.Join(bundle, "rootfs"))
	c := h.start("mapped", bundle, nil)
	c.expect(t, "tick 3\n")
	for _, o := range []*checkpoint.Options{{ImagesDir: h.images("1")}, {ImagesDir: h.images("2"), ParentPath: "../images-1"}} {
		var s stories
		o.LeaveRunning, o.Log = true, s.log()
		if err := checkpoint.Run(t.Context(), c.Container, o); err != nil {
			t.Fatal(err)
		}
		s.told(t)
		c.goesOn(t)
	}
	if err := c.Delete(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	reap(c.State().InitProcessPid)
	again, err := h.restore("mapped", bundle, h.images("2"), nil)
	if err != nil {
		t.Fatal(err)
	}
	again.goesOn(t)
}

// A parent that cannot be read is refused before anything stops.
func TestDamagedParentIsRefusedAndTheJobRunsOn(t *testing.T) {
	if pagemap.HaveSoftDirty() == nil {
		return // CRIU's affair
	}
	h := newHost(t)
	c := h.start("parent", h.memories(nil), nil)
	c.expect(t, "tick 3\n")
	if err := checkpoint.PreDump(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("pre")}); err != nil {
		t.Fatal(err)
	}
	maps, err := filepath.Glob(filepath.Join(h.images("pre"), "pagemap-*.img"))
	if err != nil || len(maps) == 0 {
		t.Fatalf("%v, %v", maps, err)
	}
	if err := os.Truncate(maps[0], 20); err != nil {
		t.Fatal(err)
	}
	for _, leave := range []bool{true, false} {
		err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{
			ImagesDir: h.images("1"), ParentPath: "../images-pre", LeaveRunning: leave,
		})
		if !errors.Is(err, image.ErrDamaged) {
			t.Errorf("%v", err)
		}
		c.goesOn(t)
	}
	// As ever: what only CRIU could do is said to need the kernel.
	err = checkpoint.PreDump(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("2"), PageServer: "127.0.0.1:1"})
	if !errors.Is(err, checkpoint.ErrNoMemTrack) {
		t.Errorf("%v", err)
	}
}
