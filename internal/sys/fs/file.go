package fs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenFile opens the regular file name for reading. It never blocks on a fifo that took the file's place, and does not
// change the access time where the kernel lets it (owner or CAP_FOWNER).
func (d *Dir) OpenFile(name string) (*os.File, error) {
	flags := unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOATIME
	fd, err := d.openat2(name, flags, 0)
	if errors.Is(err, unix.EPERM) {
		flags &^= unix.O_NOATIME
		fd, err = d.openat2(name, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	return newFile(fd, name, flags), nil
}

// OpenWrite opens the existing regular file name for reading and writing.
func (d *Dir) OpenWrite(name string) (*os.File, error) {
	const flags = unix.O_RDWR | unix.O_NONBLOCK
	fd, err := d.openat2(name, flags, 0)
	if err != nil {
		return nil, err
	}
	return newFile(fd, name, flags), nil
}

// Create makes a new file, for reading and writing by its owner only; it fails where the name is taken.
func (d *Dir) Create(name string) (*os.File, error) {
	fd, err := d.openat2(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return newFile(fd, name, 0), nil
}

// newFile makes the *os.File of a regular file that was opened with flags. O_NONBLOCK goes first: os.NewFile would otherwise
// offer the descriptor to the netpoller at the price of two system calls a file, and epoll takes no regular file anyway.
func newFile(fd int, name string, flags int) *os.File {
	if flags&unix.O_NONBLOCK != 0 {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_NONBLOCK)
	}
	return os.NewFile(uintptr(fd), name)
}

// StatFile describes an open file.
func StatFile(f *os.File) (Stat, error) {
	s, err := statx(int(f.Fd()), "", unix.AT_EMPTY_PATH)
	if err != nil {
		return Stat{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return s, nil
}

// StatPath describes what path leads to, following symlinks and the links of /proc.
func StatPath(path string) (Stat, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return Stat{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	s, err := statx(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return Stat{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return s, nil
}

// Pin holds on to what path leads to, following symlinks and the links of /proc, without opening it: its data can't be read, its
// description can, as often as is needed and of that file only. The caller closes it.
func Pin(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// NextData returns the bounds of the first run of data at or after off: start == end == size when only a hole follows.
func NextData(f *os.File, off, size int64) (start, end int64, err error) {
	start, err = unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP): // the filesystem knows no holes
		return off, size, nil
	case err != nil:
		return 0, 0, fmt.Errorf("seek data of %s: %w", f.Name(), err)
	}
	end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("seek hole of %s: %w", f.Name(), err)
	}
	return min(start, size), min(end, size), nil
}

// PunchHole frees a range of a file, which then reads as zeros. Where the filesystem cannot, zeros are written.
func PunchHole(f *os.File, off, n int64) error {
	err := retry(func() error {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	zero := make([]byte, min(n, 64<<10))
	for n > 0 {
		m, err := f.WriteAt(zero[:min(n, int64(len(zero)))], off)
		if err != nil {
			return err
		}
		off, n = off+int64(m), n-int64(m)
	}
	return nil
}

// Reserve allocates the blocks of a file's first n bytes, so that a later write cannot run out of space. A filesystem
// that cannot reserve is no error.
func Reserve(f *os.File, n int64) error {
	err := retry(func() error { return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, n) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// Lock takes the file's advisory lock for as long as the descriptor is open; it does not wait: EWOULDBLOCK when another
// process has it.
func Lock(f *os.File) error {
	return retry(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
}

// ChmodFile sets the permissions of an open file, the set-id and sticky bits among them.
func ChmodFile(f *os.File, mode uint32) error {
	return wrap("chmod", f.Name(), unix.Fchmod(int(f.Fd()), mode&0o7777))
}
