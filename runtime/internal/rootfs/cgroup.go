package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mountCgroup mounts the cgroup hierarchies of the host's kind.
func (r *Root) mountCgroup(m *mount) error {
	if cgroups.IsCgroup2UnifiedMode() {
		return r.mountCgroup2(m)
	}
	return r.mountCgroup1(m)
}

// mountCgroup2 mounts the one hierarchy, or binds it where a user namespace without a cgroup namespace may not mount.
func (r *Root) mountCgroup2(m *mount) error {
	own := *m
	own.fstype, own.source = "cgroup2", "cgroup"
	err := r.mountFresh(&own)
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EBUSY) {
		return err
	}
	own = *m
	own.bind, own.recursive, own.source = true, false, fs2.UnifiedMountpoint
	if HasNamespace(r.o.Spec, specs.CgroupNamespace) && r.o.CgroupPath2 != "" {
		own.source = r.o.CgroupPath2 // what a mount in the cgroup namespace would have shown
	}
	err = r.mountBind(&own, -1)
	if errors.Is(err, os.ErrNotExist) && r.o.Rootless {
		// Outside of a user namespace with its own mounts the directory is not ours to see: an empty one it is, then.
		own = *m
		own.fstype, own.source, own.options = "tmpfs", "tmpfs", []string{"nr_blocks=1", "nr_inodes=1"}
		own.set |= unix.MOUNT_ATTR_RDONLY
		return r.mountFresh(&own)
	}
	return err
}

// mountCgroup1 makes a tmpfs with one directory a hierarchy: the hierarchy itself in a cgroup namespace, which shows
// no more than the container's part, else a bind of that part.
func (r *Root) mountCgroup1(m *mount) error {
	parts, err := cgroupParts(m.dest, nil)
	if err != nil {
		return err
	}
	attrs := m.set | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	base := &mount{
		source: "tmpfs", fstype: "tmpfs", dest: m.dest, options: []string{"mode=755"}, propagation: m.propagation,
		set: attrs &^ unix.MOUNT_ATTR_RDONLY, // "ro" is for the hierarchies
	}
	if err := r.mountFresh(base); err != nil {
		return err
	}
	namespaced := HasNamespace(r.o.Spec, specs.CgroupNamespace)
	for _, part := range parts {
		own := &mount{source: part.Source, dest: part.Destination, bind: true, recursive: true, set: m.set, clear: m.clear}
		if namespaced {
			name := filepath.Base(part.Destination)
			own.bind, own.source, own.fstype, own.set = false, "cgroup", "cgroup", attrs
			own.options = []string{name}
			if name == "systemd" {
				own.source, own.options = "systemd", []string{"none", "name=systemd"}
			}
		}
		if err := r.mountOne1(own); err != nil {
			return fmt.Errorf("hierarchy %s: %w", part.Destination, err)
		}
		if err := r.linkControllers(m.dest, filepath.Base(part.Destination)); err != nil {
			return err
		}
	}
	return nil
}

func (r *Root) mountOne1(m *mount) error {
	if m.bind {
		return r.mountBind(m, -1)
	}
	if strings.Contains(m.options[0], ",") { // controllers mounted together, as "cpu,cpuacct"
		m.options = strings.Split(m.options[0], ",")
	}
	return r.mountFresh(m)
}

// linkControllers gives each controller of a joint hierarchy ("cpu,cpuacct") a name of its own.
func (r *Root) linkControllers(dest, name string) error {
	if !strings.Contains(name, ",") {
		return nil
	}
	for controller := range strings.SplitSeq(name, ",") {
		if err := r.tree.symlink(name, filepath.Join(dest, controller)); err != nil {
			return err
		}
	}
	return nil
}

// cgroupParts lists, for a cgroup mount at dest on cgroup v1, the bind of each hierarchy's directory: the container's
// where paths has it by controller, else the one that the calling process is in.
func cgroupParts(dest string, paths map[string]string) ([]ExternalMount, error) {
	mounts, err := cgroups.GetCgroupMounts(false)
	if err != nil {
		return nil, fmt.Errorf("list cgroup hierarchies: %w", err)
	}
	own, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("read own cgroups: %w", err)
	}
	parts := make([]ExternalMount, 0, len(mounts))
	for _, m := range mounts {
		part := ExternalMount{Destination: filepath.Join(dest, filepath.Base(m.Mountpoint))}
		for _, controller := range m.Subsystems {
			if path := paths[controller]; path != "" {
				part.Source = path
			}
		}
		if part.Source == "" {
			dir, err := m.GetOwnCgroup(own)
			if err != nil {
				return nil, fmt.Errorf("find own cgroup of %s: %w", m.Mountpoint, err)
			}
			rel, err := filepath.Rel(m.Root, dir)
			if err != nil {
				return nil, fmt.Errorf("find own cgroup of %s: %w", m.Mountpoint, err)
			}
			part.Source = filepath.Join(m.Mountpoint, rel)
		}
		parts = append(parts, part)
	}
	return parts, nil
}
