package fs

import (
	"bytes"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Mkdir makes a directory for its owner only; the caller sets what it shall be.
func (d *Dir) Mkdir(name string) error {
	return wrap("mkdir", name, unix.Mkdirat(d.fd, name, 0o700))
}

// Mknod makes a device, fifo or socket node. mode's permissions are subject to the umask.
func (d *Dir) Mknod(name string, mode uint32, rdev uint64) error {
	return wrap("mknod", name, unix.Mknodat(d.fd, name, mode, int(rdev)))
}

// Symlink makes a symbolic link. Its target is text and never followed.
func (d *Dir) Symlink(target, name string) error {
	return wrap("symlink", name, unix.Symlinkat(target, d.fd, name))
}

// Readlink returns the target of a symbolic link.
func (d *Dir) Readlink(name string) (string, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(d.fd, name, buf)
		if err != nil {
			return "", wrap("readlink", name, err)
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// Link gives the inode at from/old one more name.
func (d *Dir) Link(from *Dir, old, name string) error {
	return wrap("link", name, unix.Linkat(from.fd, old, d.fd, name, 0))
}

// Rename moves old to name within the directory, replacing what is there.
func (d *Dir) Rename(old, name string) error {
	return wrap("rename", name, unix.Renameat2(d.fd, old, d.fd, name, 0))
}

// Exchange swaps two names, whatever they are of, at once.
func (d *Dir) Exchange(a, b string) error {
	return wrap("exchange", b, unix.Renameat2(d.fd, a, d.fd, b, unix.RENAME_EXCHANGE))
}

// Unlink removes a name that is no directory.
func (d *Dir) Unlink(name string) error {
	return wrap("unlink", name, unix.Unlinkat(d.fd, name, 0))
}

// Rmdir removes an empty directory.
func (d *Dir) Rmdir(name string) error {
	return wrap("rmdir", name, unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR))
}

// RemoveAll removes name and everything beneath; that it is gone already is no error.
func (d *Dir) RemoveAll(name string) error {
	err := d.Unlink(name)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	sub, openErr := d.Beneath(name)
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	names, err := sub.Names()
	for i := 0; err == nil && i < len(names); i++ {
		err = sub.RemoveAll(names[i])
	}
	sub.Close()
	if err != nil {
		return err
	}
	return d.Rmdir(name)
}

// Chown sets the numeric owner of name itself, also of a symlink.
func (d *Dir) Chown(name string, uid, gid uint32) error {
	return wrap("chown", name, unix.Fchownat(d.fd, name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW))
}

// Chmod sets the permissions of name, which must not be a symlink.
func (d *Dir) Chmod(name string, mode uint32) error {
	fd, err := d.openat2(name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return wrap("chmod", name, unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode&0o7777))
}

// SetMtime sets the modification time of name itself and leaves the access time; "" is the directory itself.
func (d *Dir) SetMtime(name string, t Time) error {
	if name == "" {
		name = "."
	}
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: t.Sec, Nsec: int64(t.Nsec)}}
	return wrap("set time of", name, unix.UtimesNanoAt(d.fd, name, ts, unix.AT_SYMLINK_NOFOLLOW))
}

// Xattrs returns the names of the extended attributes of name itself. A filesystem without any has none.
func (d *Dir) Xattrs(name string) ([]string, error) {
	path := d.at(name)
	var small [512]byte
	buf := small[:]
	for {
		n, err := unix.Llistxattr(path, buf)
		switch {
		case errors.Is(err, unix.ERANGE):
			buf = make([]byte, 64<<10) // XATTR_LIST_MAX
			continue
		case errors.Is(err, unix.EOPNOTSUPP), err == nil && n == 0:
			return nil, nil
		case err != nil:
			return nil, wrap("list xattrs of", name, err)
		}
		var names []string
		for _, b := range bytes.Split(buf[:n-1], []byte{0}) {
			names = append(names, string(b))
		}
		return names, nil
	}
}

// Xattr returns the value of one extended attribute; ENODATA when it is not there.
func (d *Dir) Xattr(name, attr string) ([]byte, error) {
	var small [256]byte
	buf := small[:]
	for {
		n, err := unix.Lgetxattr(d.at(name), attr, buf)
		if errors.Is(err, unix.ERANGE) && len(buf) == len(small) {
			buf = make([]byte, 64<<10) // XATTR_SIZE_MAX
			continue
		}
		if err != nil {
			return nil, wrap("get xattr "+attr+" of", name, err)
		}
		return append([]byte{}, buf[:n]...), nil
	}
}

// SetXattr sets one extended attribute of name itself.
func (d *Dir) SetXattr(name, attr string, value []byte) error {
	return wrap("set xattr "+attr+" of", name, unix.Lsetxattr(d.at(name), attr, value, 0))
}

// RemoveXattr removes one extended attribute of name itself.
func (d *Dir) RemoveXattr(name, attr string) error {
	return wrap("remove xattr "+attr+" of", name, unix.Lremovexattr(d.at(name), attr))
}

// at is the path that the calls without a directory argument take. One component after a held descriptor: the l-variants
// do not follow it.
func (d *Dir) at(name string) string {
	if name == "" {
		return d.proc + "/."
	}
	return d.proc + "/" + name
}

func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: name, Err: err}
}
