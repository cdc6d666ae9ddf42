package rootfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"
)

// copyUp fills a tmpfs that is not attached yet with what the image has at its mount point (tmpcopyup). Both trees are
// walked by descriptor and no symlink is followed.
func copyUp(point, mnt *os.File) error {
	from, err := pathrs.Reopen(point, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := openAt(mnt, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer to.Close()
	return copyDir(from, to)
}

func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func copyDir(from, to *os.File) error {
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copyEntry(from, to, name); err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
	}
	return nil
}

func copyEntry(from, to *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(from.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = unix.Mkdirat(int(to.Fd()), name, 0o700)
	case unix.S_IFREG:
		err = copyFile(from, to, name)
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		var n int
		if n, err = unix.Readlinkat(int(from.Fd()), name, target); err == nil {
			err = unix.Symlinkat(string(target[:n]), int(to.Fd()), name)
		}
	default:
		err = unix.Mknodat(int(to.Fd()), name, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	if err := copyRights(from, to, name, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	src, err := openAt(from, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := openAt(to, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dst.Close()
	return copyDir(src, dst)
}

func copyFile(from, to *os.File, name string) error {
	src, err := openAt(from, name, unix.O_RDONLY|unix.O_NONBLOCK) // it may have become a fifo
	if err != nil {
		return err
	}
	defer src.Close()
	fd, err := unix.Openat(int(to.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(fd), name)
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// copyRights copies owner, mode, extended attributes and times, the owner first because a change of it clears setuid.
func copyRights(from, to *os.File, name string, st *unix.Stat_t) error {
	dir := int(to.Fd())
	if err := unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	if err := unix.Fchmodat(dir, name, st.Mode&0o7777, 0); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := copyXattrs(from, to, name); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func copyXattrs(from, to *os.File, name string) error {
	src, err := openAt(from, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := openAt(to, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer dst.Close()
	list := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Flistxattr(int(src.Fd()), list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for attr := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if attr == "" {
			continue
		}
		size, err := unix.Fgetxattr(int(src.Fd()), attr, value)
		if err != nil {
			return err
		}
		// A tmpfs has no user.* before 6.6, and labels follow the mount: what it does not take is left behind.
		err = unix.Fsetxattr(int(dst.Fd()), attr, value[:size], 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return nil
}
