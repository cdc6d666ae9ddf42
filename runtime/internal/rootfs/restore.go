package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ExternalMount is a mount that a checkpoint does not carry: it is given again at restore.
type ExternalMount struct {
	Destination string // in the container, as the dump names it
	Source      string // on this host
}

// ExternalMounts lists what CRIU must be told of: binds, the parts of a cgroup v1 mount outside a cgroup namespace, the
// /dev/null over masked files, and devices that were bound in a user namespace. The convention is runc's, so that
// images go both ways. cgroupPaths are the container's directories by controller.
func ExternalMounts(spec *specs.Spec, bundle string, cgroupPaths map[string]string) ([]ExternalMount, error) {
	var list []ExternalMount
	for i := range spec.Mounts {
		m, err := parseMount(&spec.Mounts[i], bundle)
		if err != nil {
			return nil, err
		}
		switch {
		case m.bind:
			list = append(list, ExternalMount{Destination: m.dest, Source: m.source})
		case m.fstype == "cgroup" && !cgroups.IsCgroup2UnifiedMode() && !HasNamespace(spec, specs.CgroupNamespace):
			parts, err := cgroupParts(m.dest, cgroupPaths)
			if err != nil {
				return nil, err
			}
			list = append(list, parts...)
		}
	}
	if spec.Linux != nil && len(spec.Linux.MaskedPaths) > 0 {
		list = append(list, ExternalMount{Destination: "/dev/null", Source: "/dev/null"})
	}
	if HasNamespace(spec, specs.UserNamespace) {
		for _, d := range Devices(spec) {
			list = append(list, ExternalMount{Destination: d.Path, Source: d.Path})
		}
	}
	return list, nil
}

// MakeMountPoints makes, inside the root of a container to be restored, every file and directory that something will
// be mounted on: CRIU mounts, but makes none. root must be a private mount of the caller's own that nothing else uses;
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
		point, _, err := t.mountPoint(m, func() (bool, error) { return true, nil })
		if err != nil {
			return nil, err
		}
		return nil, point.Close()
	}
	mnt, err := clone(unix.AT_FDCWD, m.source, true)
	if err != nil {
		return nil, err
	}
	point, _, err := t.mountPoint(m, func() (bool, error) {
		info, err := mnt.Stat()
		return err == nil && info.IsDir(), err
	})
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
