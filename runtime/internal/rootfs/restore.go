package rootfs

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux/label"
	"golang.org/x/sys/unix"
)

// ExternalMount is a mount that a checkpoint does not carry: it is given again at restore.
type ExternalMount struct {
	Destination string // in the container, as the dump names it
	Source      string // on this host
}

// Here is where a restore finds on this host what the images leave out. The zero value is for a dump, which asks for
// destinations only.
type Here struct {
	Rootfs      string            // the sources below it are resolved in it
	CgroupPaths map[string]string // the container's directories by controller
	Null        string            // over masked files; "" is the host's /dev/null
}

// ExternalMounts lists what CRIU must be told of: binds, the parts of a cgroup v1 mount outside a cgroup namespace, the
// null device over masked files, and devices that were bound in a user namespace. The convention is runc's, so that
// images go both ways: the null device is known as /dev/null.
func ExternalMounts(spec *specs.Spec, bundle string, here Here) ([]ExternalMount, error) {
	var list []ExternalMount
	for i := range spec.Mounts {
		m, err := parseMount(&spec.Mounts[i], bundle)
		if err != nil {
			return nil, err
		}
		switch {
		case m.idmap:
			// CRIU binds the source as it is: the container would come back to files of other owners.
			return nil, fmt.Errorf("mount on %s has id maps, which a restore cannot give it", m.dest)
		case m.bind:
			source, err := m.resolveSource(here.Rootfs)
			if err != nil {
				return nil, err
			}
			list = append(list, ExternalMount{Destination: m.dest, Source: source})
		case m.fstype == "cgroup" && !cgroups.IsCgroup2UnifiedMode() && !HasNamespace(spec, specs.CgroupNamespace):
			parts, err := cgroupParts(m.dest, here.CgroupPaths)
			if err != nil {
				return nil, err
			}
			list = append(list, parts...)
		}
	}
	if spec.Linux != nil && len(spec.Linux.MaskedPaths) > 0 {
		list = append(list, ExternalMount{Destination: "/dev/null", Source: cmp.Or(here.Null, "/dev/null")})
	}
	if HasNamespace(spec, specs.UserNamespace) {
		for _, d := range Devices(spec) {
			list = append(list, ExternalMount{Destination: d.Path, Source: d.Path})
		}
	}
	return list, nil
}

// MountNull mounts a filesystem on dir with nothing but a null device in it, and returns the path of that. Masks of the
// host's own would let the container's root change the rights of the host's /dev/null through them. It is for the caller
// to unmount dir, also after an error, which is os.ErrPermission where this process may not make devices.
func MountNull(dir, mountLabel string) (string, error) {
	options := label.FormatMountLabel("size=4k,nr_inodes=4,mode=755", mountLabel)
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, options); err != nil {
		return "", fmt.Errorf("mount tmpfs: %w", err)
	}
	// CRIU takes a place in this mount's group for a mask that was a slave, and no private mount has one.
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		return "", fmt.Errorf("share tmpfs: %w", err)
	}
	path := filepath.Join(dir, "null")
	if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		return "", &os.PathError{Op: "make device", Path: path, Err: err}
	}
	if err := os.Chmod(path, 0o666); err != nil { // whatever the umask
		return "", err
	}
	return path, nil
}

// MakeMountPoints makes, inside the root of a container to be restored, every file and directory that something will
// be mounted on: CRIU mounts, but makes none. root must be a mount of the caller's own that nothing else uses;
// binds are mounted into it while this runs, for mount points may lie inside them, and are gone when it returns. What
// lies on a tmpfs comes back with the tmpfs.
func MakeMountPoints(root string, spec *specs.Spec, bundle string) (err error) {
	dir, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	defer dir.Close()
	t, err := openTree(dir)
	if err != nil {
		return err
	}
	var undo []*os.File
	defer func() {
		for i := len(undo) - 1; i >= 0; i-- {
			err = errors.Join(err, detach(undo[i]))
		}
	}()
	var tmpfs []string
	for i := range spec.Mounts {
		m, err := parseMount(&spec.Mounts[i], bundle)
		if err != nil {
			return err
		}
		covered := below(m.dest, tmpfs)
		if m.fstype == "tmpfs" && !m.bind {
			tmpfs = append(tmpfs, m.dest)
		}
		if m.fstype == "cgroup" || covered {
			continue
		}
		mnt, err := t.preparePoint(m)
		if err != nil {
			return fmt.Errorf("make mount point %s: %w", m.dest, err)
		}
		if mnt != nil {
			undo = append(undo, mnt)
		}
	}
	return nil
}

// preparePoint makes one mount point; a bind is mounted on it and returned.
func (t *tree) preparePoint(m *mount) (*os.File, error) {
	if !m.bind {
		point, _, err := t.mountPoint(m, nil)
		if err != nil {
			return nil, err
		}
		return nil, point.Close()
	}
	mnt, err := m.cloneSource(t.dir, true)
	if err != nil {
		return nil, err
	}
	point, _, err := t.mountPoint(m, mnt)
	if err != nil {
		return nil, errors.Join(err, mnt.Close())
	}
	defer point.Close()
	if err := attach(mnt, point); err != nil {
		return nil, errors.Join(err, mnt.Close())
	}
	return mnt, nil
}

// detach takes a mount off again that attach put there.
func detach(mnt *os.File) error {
	err := unix.Unmount(fmt.Sprintf("/proc/self/fd/%d", mnt.Fd()), unix.MNT_DETACH)
	if err != nil {
		err = fmt.Errorf("unmount %s: %w", mnt.Name(), err)
	}
	return errors.Join(err, mnt.Close())
}

func below(path string, dirs []string) bool {
	for _, dir := range dirs {
		if strings.HasPrefix(path, filepath.Clean(dir)+"/") {
			return true
		}
	}
	return false
}
