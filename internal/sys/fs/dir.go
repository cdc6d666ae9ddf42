package fs

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// Dir is an open directory. The caller closes it. It is not for concurrent use with Close.
type Dir struct {
	fd   int
	proc string // /proc/self/fd/N
}

func newDir(fd int) *Dir {
	return &Dir{fd: fd, proc: "/proc/self/fd/" + strconv.Itoa(fd)}
}

// OpenRoot opens the directory that a tree hangs on. Where permitted (CAP_SYS_ADMIN) the result is a detached clone of
// the mount without what is mounted beneath, so that other filesystems cannot be crossed into, not even one that gets
// mounted later; detached says so. path may lead through symlinks: it is the operator's.
func OpenRoot(path string) (d *Dir, detached bool, err error) {
	plain, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, &os.PathError{Op: "open", Path: path, Err: err}
	}
	tree, err := unix.OpenTree(plain, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return newDir(plain), false, nil
	}
	defer unix.Close(tree)
	fd, err := unix.Openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return newDir(plain), false, nil
	}
	unix.Close(plain)
	return newDir(fd), true, nil
}

// OpenDir opens a directory that is not part of a tree to be guarded.
func OpenDir(path string) (*Dir, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return newDir(fd), nil
}

// OpenWithin opens the directory that path leads a process to whose root directory root is: symlinks are followed, and not
// even absolute ones or ".." lead out. root may be a link of /proc, path is relative to it with or without a leading slash.
func OpenWithin(root, path string) (*Dir, error) {
	top, err := OpenDir(root)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	fd, err := top.resolve(path, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, err
	}
	return newDir(fd), nil
}

// Close releases the descriptor.
func (d *Dir) Close() error {
	if d == nil || d.fd < 0 {
		return nil
	}
	err := unix.Close(d.fd)
	d.fd = -1
	return err
}

// Fd returns the descriptor, which stays the Dir's.
func (d *Dir) Fd() int { return d.fd }

// Dup returns a second handle on the same directory.
func (d *Dir) Dup() (*Dir, error) {
	fd, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("duplicate directory: %w", err)
	}
	return newDir(fd), nil
}

// Beneath opens the directory at a relative path; "" and "." are d itself. The path may not leave d and may not lead
// through a symlink.
func (d *Dir) Beneath(path string) (*Dir, error) {
	if path == "" || path == "." {
		return d.Dup()
	}
	fd, err := d.openat2(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return newDir(fd), nil
}

func (d *Dir) openat2(path string, flags int, mode uint32) (int, error) {
	return d.resolve(path, &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW), Mode: uint64(mode), Resolve: beneath})
}

func (d *Dir) resolve(path string, how *unix.OpenHow) (int, error) {
	for {
		fd, err := unix.Openat2(d.fd, path, how)
		switch {
		case err == nil:
			return fd, nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // EAGAIN: a rename raced with the resolution
			continue
		}
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
}

// Names lists the directory, unsorted, without "." and "..".
func (d *Dir) Names() ([]string, error) {
	if _, err := unix.Seek(d.fd, 0, unix.SEEK_SET); err != nil {
		return nil, fmt.Errorf("rewind directory: %w", err)
	}
	buf := make([]byte, 32<<10)
	var names []string
	for {
		n, err := unix.Getdents(d.fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOENT): // the directory was deleted
			return names, nil
		case err != nil:
			return nil, fmt.Errorf("list directory: %w", err)
		case n == 0:
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// Stat describes the entry name without following it; "" is the directory itself.
func (d *Dir) Stat(name string) (Stat, error) {
	flags := 0
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	s, err := statx(d.fd, name, flags)
	if err != nil {
		return Stat{}, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return s, nil
}

// FsID identifies the filesystem: statfs's f_fsid, which ext4, xfs and btrfs derive from the volume and not, like
// st_dev, from the order of mounting.
func (d *Dir) FsID() (uint64, error) {
	var s unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(d.fd, &s) }); err != nil {
		return 0, fmt.Errorf("stat filesystem: %w", err)
	}
	return uint64(uint32(s.Fsid.Val[0])) | uint64(uint32(s.Fsid.Val[1]))<<32, nil
}

// IsOverlay says whether the directory lies on overlayfs.
func (d *Dir) IsOverlay() bool {
	var s unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(d.fd, &s) })
	return err == nil && s.Type == unix.OVERLAYFS_SUPER_MAGIC
}

// SyncFS writes all of the filesystem's dirty data to the disk, and says whether that failed for any file since the
// descriptor was opened (since Linux 5.8).
func (d *Dir) SyncFS() error {
	if err := unix.Syncfs(d.fd); err != nil {
		return fmt.Errorf("sync filesystem: %w", err)
	}
	return nil
}
