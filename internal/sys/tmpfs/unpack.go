package tmpfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// unpacker fills a mount.
type unpacker struct {
	root *os.Root
	in   *bufio.Reader
	left int64 // of what may be made
}

// Unpack makes in dir, which is an empty mount, what was packed, and tells how much that was, as Limit counts it. More than limit
// is not made: ErrTooMuch. Nothing outside dir is touched, whatever the names are.
func Unpack(dir string, in *bufio.Reader, limit int64) (taken int64, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, fmt.Errorf("unpack tmpfs: %w", err)
	}
	defer root.Close()
	u := &unpacker{root: root, in: in, left: limit}
	var directories []entry
	for {
		e, err := readEntry(in)
		if err != nil {
			return 0, fmt.Errorf("unpack tmpfs: %w", err)
		}
		if e.Last {
			break
		}
		if e.Mode&unix.S_IFMT == unix.S_IFDIR {
			directories = append(directories, e)
		}
		if err := u.make(&e); err != nil {
			return 0, fmt.Errorf("unpack %q of tmpfs: %w", e.Name, err)
		}
	}
	// What is made in a directory changes its time, and would inherit its default access list.
	for i := len(directories) - 1; i >= 0; i-- {
		e := directories[i]
		d, err := u.directory(string(e.Name))
		if err != nil {
			return 0, fmt.Errorf("unpack %q of tmpfs: %w", e.Name, err)
		}
		at, path := unix.NsecToTimespec(e.Mtime), within(int(d.Fd()), ".")
		if err = writeAttributes(path, e.Attributes); err == nil {
			err = os.NewSyscallError("utimensat", unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, 0))
		}
		if err := errors.Join(err, d.Close()); err != nil {
			return 0, fmt.Errorf("unpack %q of tmpfs: %w", e.Name, err)
		}
	}
	return limit - u.left, nil
}

// directory opens one. A pipe of that name would keep whoever opens it waiting, and a device is the host's.
func (u *unpacker) directory(name string) (*os.File, error) {
	return u.root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
}

// take counts what is about to be made.
func (u *unpacker) take(bytes int64) error {
	if bytes > u.left {
		return ErrTooMuch
	}
	u.left -= bytes
	return nil
}

// make makes one name, which is new but for the root's.
func (u *unpacker) make(e *entry) (err error) {
	if err := u.take(e.cost()); err != nil {
		return err
	}
	name := string(e.Name)
	if e.Hard {
		return u.root.Link(string(e.Link), name)
	}
	parent, err := u.directory(path.Dir(name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, parent.Close()) }()
	dir, base := int(parent.Fd()), path.Base(name)
	kind := e.Mode & unix.S_IFMT
	switch kind {
	case unix.S_IFDIR:
		if name != "." {
			err = unix.Mkdirat(dir, base, 0o700)
		}
	case unix.S_IFREG:
		err = u.file(dir, base, e)
	case unix.S_IFLNK:
		err = unix.Symlinkat(string(e.Link), dir, base)
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO:
		err = unix.Mknodat(dir, base, kind|0o600, int(e.Device))
	default:
		err = ErrMalformed
	}
	if err != nil {
		return err
	}
	if err := unix.Fchownat(dir, base, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fchownat", err)
	}
	if kind != unix.S_IFLNK { // after the owner: that takes setuid away
		if err := unix.Fchmodat(dir, base, e.Mode&0o7777, 0); err != nil {
			return os.NewSyscallError("fchmodat", err)
		}
	}
	if kind != unix.S_IFDIR { // those later
		if err := writeAttributes(within(dir, base), e.Attributes); err != nil {
			return err
		}
	}
	at := unix.NsecToTimespec(e.Mtime)
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(dir, base, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
}

func (u *unpacker) file(dir int, base string, e *entry) (err error) {
	fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	f := os.NewFile(uintptr(fd), base)
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(e.Size); err != nil {
		return err
	}
	for part := *e; ; {
		for _, x := range part.Extents {
			if x[0] < 0 || x[1] <= 0 || x[1] > e.Size-x[0] {
				return ErrMalformed
			}
			pages := (x[0]+x[1]-1)/pageSize - x[0]/pageSize + 1
			if x[1] > u.left {
				return ErrTooMuch
			}
			if err := u.take(pages * pageSize); err != nil {
				return err
			}
			if _, err := io.CopyN(io.NewOffsetWriter(f, x[0]), u.in, x[1]); err != nil {
				return fmt.Errorf("%w: %w", ErrMalformed, err)
			}
		}
		if !part.More {
			return nil
		}
		if part, err = readEntry(u.in); err != nil {
			return err
		}
	}
}
