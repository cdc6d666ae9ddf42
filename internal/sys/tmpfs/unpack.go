package tmpfs

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// lineLimit is what a line can have: a name, a link, and the extents of a file.
const lineLimit = 16 << 20

// Unpack makes in dir, which is an empty mount, what was packed. Nothing outside dir is touched, whatever the names are.
func Unpack(dir string, in *bufio.Reader) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpack tmpfs: %w", err)
	}
	defer root.Close()
	var directories []entry
	for {
		e, err := readEntry(in)
		if err != nil {
			return fmt.Errorf("unpack tmpfs: %w", err)
		}
		if e.Last {
			break
		}
		if e.Mode&unix.S_IFMT == unix.S_IFDIR {
			directories = append(directories, e)
		}
		if err := e.make(root, in); err != nil {
			return fmt.Errorf("unpack %s of tmpfs: %w", e.Name, err)
		}
	}
	// What is made in a directory changes its time.
	for i := len(directories) - 1; i >= 0; i-- {
		e := directories[i]
		d, err := root.Open(e.Name)
		if err != nil {
			return fmt.Errorf("unpack %s of tmpfs: %w", e.Name, err)
		}
		at := unix.NsecToTimespec(e.Mtime)
		err = unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", d.Fd()), []unix.Timespec{at, at}, 0)
		if err := errors.Join(os.NewSyscallError("utimensat", err), d.Close()); err != nil {
			return fmt.Errorf("unpack %s of tmpfs: %w", e.Name, err)
		}
	}
	return nil
}

func readEntry(in *bufio.Reader) (e entry, err error) {
	var line []byte
	for more := true; more; {
		var part []byte
		if part, more, err = in.ReadLine(); err != nil {
			return e, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		if line = append(line, part...); len(line) > lineLimit {
			return e, fmt.Errorf("%w: a line of more than %d bytes", ErrMalformed, lineLimit)
		}
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return e, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return e, nil
}

// make makes one name, which is new but for the root's.
func (e *entry) make(root *os.Root, in io.Reader) (err error) {
	parent, err := root.Open(path.Dir(e.Name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, parent.Close()) }()
	dir, base := int(parent.Fd()), path.Base(e.Name)
	if e.Hard {
		return root.Link(e.Link, e.Name)
	}
	kind := e.Mode & unix.S_IFMT
	switch kind {
	case unix.S_IFDIR:
		if e.Name != "." {
			err = unix.Mkdirat(dir, base, 0o700)
		}
	case unix.S_IFREG:
		err = e.fill(dir, base, in)
	case unix.S_IFLNK:
		err = unix.Symlinkat(e.Link, dir, base)
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
	at := unix.NsecToTimespec(e.Mtime)
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(dir, base, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
}

func (e *entry) fill(dir int, base string, in io.Reader) (err error) {
	fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	f := os.NewFile(uintptr(fd), base)
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(e.Size); err != nil {
		return err
	}
	for _, x := range e.Extents {
		if x[0] < 0 || x[1] < 0 || x[0]+x[1] > e.Size {
			return ErrMalformed
		}
		if _, err := io.CopyN(io.NewOffsetWriter(f, x[0]), in, x[1]); err != nil {
			return err
		}
	}
	return nil
}
