package attacks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// CVE-2023-25809: a container with a user namespace and no cgroup namespace was given the host's /sys/fs/cgroup writable,
// although the spec said read-only: whatever its owner may write there the container could write, too. The attacked
// cgroup belongs to the container's root on the host, so that nothing but the mount is in the way.
func TestCVE_2023_25809_CgroupsOfTheHostAreNotWritable(t *testing.T) {
	readOnly := []string{"nosuid", "noexec", "nodev", "ro"}
	for name, mounts := range map[string][]specs.Mount{
		"cgroup mount": {
			{Destination: "/sys", Type: "bind", Source: "/sys", Options: append([]string{"rbind"}, readOnly...)},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: append([]string{"relatime"}, readOnly...)},
		},
		"sys alone": {
			{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "rro"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, c := newDelegated(t)
			c.spec.Mounts = append(c.spec.Mounts, mounts...)
			out, err := c.run()
			if err != nil {
				t.Fatalf("run: %v: %s", err, out)
			}
			w.wantUntouched(out)
		})
	}
}

// The mount that the vulnerable runtime made, named as such in a spec: the attack works.
func TestCVE_2023_25809_WritableMountFalls(t *testing.T) {
	w, c := newDelegated(t)
	c.spec.Mounts = append(c.spec.Mounts, bindMount("/sys/fs/cgroup", "/sys/fs/cgroup", "rw"))
	out, err := c.run()
	if err != nil || !strings.Contains(out, "written") {
		t.Errorf("the attack fails even on a writable mount: %v: %s", err, out)
	}
	for _, dir := range w.groups {
		_ = os.Remove(filepath.Join(dir, "pwned"))
	}
}

// delegated is a world with a cgroup of the host, in every hierarchy, that belongs to the container's root.
type delegated struct {
	*world
	groups []string
}

func newDelegated(t *testing.T) (*delegated, *container) {
	t.Helper()
	w := &delegated{world: newWorld(t)}
	const root = 100000
	name := "delegated-" + filepath.Base(w.dir)
	roots, err := filepath.Glob("/sys/fs/cgroup/*")
	must(t, err)
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		roots = []string{"/sys/fs/cgroup"} // cgroup v2
	}
	for _, dir := range roots {
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
			continue
		}
		group := filepath.Join(dir, name)
		must(t, os.Mkdir(group, 0o755))
		t.Cleanup(func() { must(t, os.Remove(group)) })
		must(t, os.Chown(group, root, root))
		w.groups = append(w.groups, group)
	}
	c := w.container("victim", "sh", "-c", `
		for group in /sys/fs/cgroup/`+name+` /sys/fs/cgroup/*/`+name+`; do
			mkdir $group/pwned 2>/dev/null && echo written $group
		done
		mount -o remount,rw,bind /sys/fs/cgroup 2>/dev/null && echo written to a remounted one
		mount -o remount,rw,bind /sys 2>/dev/null && echo written to a remounted sys
		for group in /sys/fs/cgroup/`+name+` /sys/fs/cgroup/*/`+name+`; do
			mount -o remount,rw,bind ${group%/*} 2>/dev/null && echo remounted ${group%/*}
			mkdir $group/pwned 2>/dev/null && echo written $group
		done
		true`)
	c.spec.Linux.Namespaces = append(c.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{HostID: root, Size: 65536}}
	c.spec.Linux.UIDMappings, c.spec.Linux.GIDMappings = ids, ids
	for i := range c.spec.Mounts { // sysfs is not for a user namespace with the host's network
		if c.spec.Mounts[i].Destination == "/sys" {
			c.spec.Mounts = append(c.spec.Mounts[:i], c.spec.Mounts[i+1:]...)
			break
		}
	}
	c.spec.Linux.MaskedPaths, c.spec.Linux.ReadonlyPaths = nil, nil
	must(t, os.Chown(c.rootfs, root, root))
	must(t, os.MkdirAll(filepath.Join(c.rootfs, "sys/fs/cgroup"), 0o755)) // where nothing else is mounted on /sys
	return w, c
}

func (w *delegated) wantUntouched(out string) {
	w.t.Helper()
	if strings.Contains(out, "written") {
		w.t.Errorf("the attack says: %s", out)
	}
	for _, dir := range w.groups {
		if _, err := os.Stat(filepath.Join(dir, "pwned")); err == nil {
			w.t.Errorf("the container made a cgroup in %s", dir)
			_ = os.Remove(filepath.Join(dir, "pwned"))
		}
	}
}
