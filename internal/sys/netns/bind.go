package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// Bind mounts the namespace at a relative path beneath the directory root where nothing is yet, as `ip netns add` does it in
// /run/netns: it lives until Unbind, whoever is in it. Directories on the way are made, and no link is followed on it, but on the
// way to root. os.ErrExist when something is there.
func Bind(ns *os.File, root, path string) error {
	dir, err := makeDirs(root, filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("bind network namespace: %w", err)
	}
	defer dir.Close()
	name := filepath.Base(path)
	file, err := dir.Create(name)
	if err != nil {
		return fmt.Errorf("bind network namespace: %w", err)
	}
	err = unix.Mount(fdPath(ns), fdPath(file), "", unix.MS_BIND, "")
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(fmt.Errorf("bind network namespace to %s in %s: %w", path, root, err), dir.Unlink(name))
	}
	return nil
}

func fdPath(file *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", file.Fd()) }

// makeDirs opens the directory at a relative path beneath root, which is made where it is missing.
func makeDirs(root, path string) (*fs.Dir, error) {
	dir, err := fs.OpenDir(root)
	if err != nil {
		return nil, err
	}
	for part := range strings.SplitSeq(path, "/") {
		next, err := dir.Beneath(part)
		if errors.Is(err, os.ErrNotExist) {
			if err = dir.Mkdir(part); err == nil {
				err = dir.Chmod(part, 0o755)
			}
			if err == nil || errors.Is(err, os.ErrExist) {
				next, err = dir.Beneath(part)
			}
		}
		if err = errors.Join(err, dir.Close()); err != nil {
			return nil, errors.Join(err, next.Close())
		}
		dir = next
	}
	return dir, nil
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
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if st.Type != unix.NSFS_MAGIC {
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
