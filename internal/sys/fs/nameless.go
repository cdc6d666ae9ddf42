package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Nameless makes a file without a name on the directory's filesystem (O_TMPFILE), for its owner only. It is gone when it is
// closed, unless Name has given it one. EOPNOTSUPP, or EISDIR, where the filesystem has no such files.
func (d *Dir) Nameless() (*os.File, error) {
	fd, err := unix.Openat(d.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, wrap("make a file without a name in", ".", err)
	}
	return newFile(fd, "nameless", 0), nil
}

// Name gives an open file that Nameless made a name in the directory, or one more; the two must be of one mount.
func (d *Dir) Name(f *os.File, name string) error {
	link := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	return wrap("name", name, unix.Linkat(unix.AT_FDCWD, link, d.fd, name, unix.AT_SYMLINK_FOLLOW))
}

// OpenLink opens for reading what a link of /proc leads to, names or no names, and leaves its access time alone.
func OpenLink(path string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := unix.Open(path, flags|unix.O_NOATIME, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return newFile(fd, path, flags|unix.O_NOATIME), nil
}

// MountOf is the id of the mount that an open file was reached through (mnt_id of /proc/self/fdinfo), in whichever mount
// namespace that is.
func MountOf(fd int) (int, error) {
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(info, []byte("mnt_id:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	id, err := strconv.Atoi(string(bytes.TrimSpace(line)))
	if err != nil {
		return 0, fmt.Errorf("read the mount of descriptor %d: %w", fd, err)
	}
	return id, nil
}

// SetMtimeFile sets the modification time of an open file and leaves its access time.
func SetMtimeFile(f *os.File, t Time) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: t.Sec, Nsec: int64(t.Nsec)}}
	return wrap("set time of", f.Name(), unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())), ts, 0))
}

// NoNameless tells an error that says that a filesystem makes no files without a name.
func NoNameless(err error) bool {
	for _, e := range []error{unix.EOPNOTSUPP, unix.EISDIR, unix.EINVAL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
