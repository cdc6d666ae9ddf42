package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Bind mounts the namespace at a path where nothing is yet, as `ip netns add` does it below /run/netns: it lives until Unbind,
// whoever is in it. Directories on the way are made. os.ErrExist when something is there.
func Bind(ns *os.File, path string) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("bind network namespace: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0)
	if err != nil {
		return fmt.Errorf("bind network namespace: %w", err)
	}
	err = file.Close()
	if err == nil {
		err = unix.Mount(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), path, "", unix.MS_BIND, "")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("bind network namespace to %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// Unbind takes it away again. A path where no namespace is, or nothing at all, is left alone.
func Unbind(path string) error {
	is, err := IsAt(path)
	if err != nil || !is {
		return err
	}
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return &os.PathError{Op: "unmount network namespace", Path: path, Err: err}
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove mount point of network namespace: %w", err)
	}
	return nil
}

// IsAt tells whether a network namespace is at the path. Nothing there is none. What is no namespace is not opened: a fifo
// would keep us waiting, and a device may do anything.
func IsAt(path string) (bool, error) {
	var fs unix.Statfs_t
	err := unix.Statfs(path, &fs)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if fs.Type != unix.NSFS_MAGIC {
		return false, nil
	}
	ns, err := Open(path)
	if err != nil {
		return false, err
	}
	defer ns.Close()
	kind, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return false, &os.PathError{Op: "look at namespace", Path: path, Err: err}
	}
	return kind == unix.CLONE_NEWNET, nil
}
