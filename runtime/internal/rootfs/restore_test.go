package rootfs

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/testutil"
)

// privateRoot is an empty root on a mount of its own.
func privateRoot(t *testing.T) string {
	t.Helper()
	testutil.Root(t)
	root := t.TempDir()
	if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	if err := unix.Mount("", root, "", unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestMountPointsOfARestoreAreMade(t *testing.T) {
	root := privateRoot(t)
	volume := t.TempDir()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/../../etc", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	spec := &specs.Spec{Mounts: []specs.Mount{
		{Destination: "/proc", Type: "proc"},
		{Destination: "/dev", Type: "tmpfs"},
		{Destination: "/dev/shm", Type: "tmpfs"},
		{Destination: "/sys/fs/cgroup", Type: "cgroup"},
		{Destination: "/data", Type: "bind", Source: volume},
		{Destination: "/data/inner", Type: "bind", Source: volume},
		{Destination: "/one", Type: "bind", Source: file},
		{Destination: "/link/resolv.conf", Type: "bind", Source: file},
	}}
	if err := MakeMountPoints(root, spec, "/"); err != nil {
		t.Fatal(err)
	}
	for path, isDir := range map[string]bool{
		root + "/proc": true, root + "/dev": true, root + "/data": true, volume + "/inner": true, root + "/one": false,
		root + "/etc/resolv.conf": false,
	} {
		info, err := os.Stat(path)
		if err != nil || info.IsDir() != isDir {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	for _, path := range []string{"/dev/shm", "/sys/fs/cgroup", "/data/inner"} {
		if _, err := os.Stat(root + path); err == nil {
			t.Errorf("%s was made: it comes back with what it lies on", path)
		}
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(root))
	if err != nil || len(mounts) != 1 {
		t.Errorf("%d mounts are left on the root, %v", len(mounts), err)
	}
}

func TestMountPointsOfARestoreLeaveNothingOnFailure(t *testing.T) {
	root := privateRoot(t)
	spec := &specs.Spec{Mounts: []specs.Mount{
		{Destination: "/data", Type: "bind", Source: t.TempDir()},
		{Destination: "/more", Type: "bind", Source: "/no/such/source"},
	}}
	if err := MakeMountPoints(root, spec, "/"); err == nil {
		t.Error("a missing source is no error")
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(root))
	if err != nil || len(mounts) != 1 {
		t.Errorf("%d mounts are left on the root, %v", len(mounts), err)
	}
}

func TestExternalMountsFollowTheConvention(t *testing.T) {
	spec := &specs.Spec{
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc"},
			{Destination: "/data", Type: "none", Source: "volume", Options: []string{"rbind"}},
		},
		Linux: &specs.Linux{MaskedPaths: []string{"/proc/kcore"}},
	}
	got, err := ExternalMounts(spec, "/bundle", Here{})
	want := []ExternalMount{{"/data", "/bundle/volume"}, {"/dev/null", "/dev/null"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("ExternalMounts: %v, %v; want %v", got, err, want)
	}
	spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.UserNamespace}}
	got, err = ExternalMounts(spec, "/bundle", Here{})
	if err != nil || !slices.Contains(got, ExternalMount{"/dev/tty", "/dev/tty"}) {
		t.Errorf("bound devices of a user namespace are missing: %v, %v", got, err)
	}
	spec.Mounts[1].Options = append(spec.Mounts[1].Options, "idmap")
	if got, err := ExternalMounts(spec, "/bundle", Here{}); err == nil {
		t.Errorf("a mount that would lose its id maps is carried: %v", got)
	}
}
