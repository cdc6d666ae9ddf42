package fs

import (
	"os"

	"golang.org/x/sys/unix"
)

// CanMake tells by an error why no file could be made in a directory. Nothing is left there.
func CanMake(dir string) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	switch err {
	case nil:
		return unix.Close(fd)
	case unix.EOPNOTSUPP: // the file system has no files without a name
		err = unix.Access(dir, unix.W_OK)
	}
	if err != nil {
		return &os.PathError{Op: "make a file in", Path: dir, Err: err}
	}
	return nil
}
