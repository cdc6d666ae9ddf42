package rootfs

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux/label"
	"golang.org/x/sys/unix"
)

// Protect makes the spec's read-only paths read-only and covers its masked paths. To be called inside the root, after
// sysctls are written: /proc/sys is usually among them.
func Protect(spec *specs.Spec) error {
	if spec.Linux == nil {
		return nil
	}
	v, err := openView(spec)
	if err != nil {
		return err
	}
	defer v.close()
	for _, path := range spec.Linux.ReadonlyPaths {
		if err := v.makeReadOnly(path); err != nil {
			return fmt.Errorf("make %s read-only: %w", path, err)
		}
	}
	return v.maskAll(spec.Linux.MaskedPaths, spec.Linux.MountLabel)
}

func (v *view) makeReadOnly(path string) error {
	target, err := v.open(path)
	if target == nil {
		return err
	}
	defer target.Close()
	mnt, err := clone(int(target.Fd()), "", true)
	if err != nil {
		return err
	}
	defer mnt.Close()
	if err := setAttributes(mnt, unix.MOUNT_ATTR_RDONLY, 0, false); err != nil {
		return err
	}
	return attach(mnt, target)
}

// maskAll covers files with /dev/null and directories with an empty read-only tmpfs. All directories share one tmpfs:
// a checkpoint pays for each.
func (v *view) maskAll(paths []string, mountLabel string) error {
	if len(paths) == 0 {
		return nil
	}
	null, err := openNull(unix.O_PATH)
	if err != nil {
		return fmt.Errorf("mask paths: %w", err)
	}
	defer null.Close()
	var empty *os.File
	defer func() { _ = empty.Close() }()

	done := map[string]bool{}
	for _, path := range paths {
		if path = filepath.Clean(path); done[path] {
			continue
		}
		done[path] = true
		if err := v.maskOne(path, null, &empty, mountLabel); err != nil {
			return fmt.Errorf("mask %s: %w", path, err)
		}
	}
	return nil
}

// maskOne covers one path. The first directory makes the empty tmpfs.
func (v *view) maskOne(path string, null *os.File, empty **os.File, mountLabel string) error {
	target, err := v.open(path)
	if target == nil {
		return err
	}
	defer target.Close()
	info, err := target.Stat()
	if err != nil {
		return err
	}
	if !info.IsDir() {
		mnt, err := clone(int(null.Fd()), "", false)
		if err != nil {
			return err
		}
		defer mnt.Close()
		return attach(mnt, target)
	}
	if *empty == nil {
		*empty, err = emptyTmpfs(mountLabel)
		if err != nil {
			return err
		}
		return attach(*empty, target)
	}
	mnt, err := clone(int((*empty).Fd()), "", false)
	if err != nil {
		return err
	}
	defer mnt.Close()
	return attach(mnt, target)
}

func emptyTmpfs(mountLabel string) (*os.File, error) {
	options := []string{"nr_blocks=1", "nr_inodes=1", "ro"}
	if mountLabel != "" {
		options = append(options, label.FormatMountLabel("", mountLabel))
	}
	mnt, err := fresh("tmpfs", "tmpfs", options, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		// Ubuntu 20.04's kernel 5.4 carries a patch that wants two inodes.
		options[1] = "nr_inodes=2"
		mnt, err = fresh("tmpfs", "tmpfs", options, unix.MOUNT_ATTR_RDONLY)
	}
	return mnt, err
}
