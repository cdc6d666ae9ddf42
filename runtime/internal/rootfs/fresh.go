package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxOption is what fsconfig(2) takes as a value, its NUL included.
const maxOption = 256

// fresh makes a new mount of a filesystem that is attached nowhere yet; attach puts it in its place. The attributes
// are given at birth, for the kernel compares them with the mounts of the same kind that it lets a user namespace see.
// Needs Linux 5.2.
func fresh(fstype, source string, options []string, attrs uint64) (*os.File, error) {
	fd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open filesystem %s: %w", fstype, err)
	}
	defer unix.Close(fd)
	if source != "" {
		if err := unix.FsconfigSetString(fd, "source", source); err != nil {
			return nil, fsError(fd, fmt.Sprintf("set source of %s to %q", fstype, source), err)
		}
	}
	for _, option := range options {
		key, value, hasValue := strings.Cut(option, "=")
		if hasValue {
			err = unix.FsconfigSetString(fd, key, value)
		} else if key != "" {
			err = unix.FsconfigSetFlag(fd, key)
		}
		if err != nil {
			return nil, fsError(fd, fmt.Sprintf("set option %q of %s", option, fstype), err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, fsError(fd, "create "+fstype, err)
	}
	mnt, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, int(attrs))
	if err != nil {
		return nil, fsError(fd, "mount "+fstype, err)
	}
	return os.NewFile(uintptr(mnt), fstype), nil
}

// fsError adds what the filesystem itself says about the failure: reading the context gives its log, line by line.
func fsError(fd int, op string, err error) error {
	var lines []string
	buf := make([]byte, 1024)
	for len(lines) < 8 {
		n, readErr := unix.Read(fd, buf)
		if readErr != nil || n <= 0 {
			break
		}
		lines = append(lines, strings.TrimSpace(strings.TrimPrefix(string(buf[:n]), "e ")))
	}
	if len(lines) > 0 {
		return fmt.Errorf("%s: %w (%s)", op, err, strings.Join(lines, "; "))
	}
	return fmt.Errorf("%s: %w", op, err)
}

// legacy mounts by mount(2) for options longer than fsconfig(2) takes, such as an overlay of many layers, and returns a
// detached mount like fresh: it is made on top of the container's root, cloned, and taken off again. Not on its real
// mount point, which would have to be looked up by name: once it is there, its descriptor names what it covers, and in a
// volume the name may lead anywhere meanwhile.
func legacy(fstype, source string, options []string, attrs uint64, root string) (*os.File, error) {
	if err := unix.Mount(source, root, fstype, 0, strings.Join(options, ",")); err != nil {
		return nil, fmt.Errorf("mount %s: %w", fstype, err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, root, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err := errors.Join(err, unix.Unmount(root, unix.MNT_DETACH)); err != nil {
		return nil, fmt.Errorf("detach mount of %s: %w", fstype, err)
	}
	mnt := os.NewFile(uintptr(fd), fstype)
	if err := setAttributes(mnt, attrs, unix.MOUNT_ATTR__ATIME, false); err != nil {
		return nil, errors.Join(fmt.Errorf("set attributes of %s: %w", fstype, err), mnt.Close())
	}
	return mnt, nil
}

// clone makes a detached copy of the mount, or with recursive the tree of mounts, at path; or of the file itself when
// path is empty.
func clone(dir int, path string, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	fd, err := unix.OpenTree(dir, path, flags)
	if err != nil {
		return nil, &os.PathError{Op: "clone mount", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// attach moves a detached mount on top of target; mnt then names the mount in its place. Both ends are descriptors,
// so nothing that changes in the tree meanwhile can lead the mount elsewhere.
func attach(mnt, target *os.File) error {
	err := unix.MoveMount(int(mnt.Fd()), "", int(target.Fd()), "",
		unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("attach mount: %w", err)
	}
	return nil
}

// setAttributes changes the flags of a mount, and with recursive of everything below it. Needs Linux 5.12.
func setAttributes(mnt *os.File, set, unset uint64, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(int(mnt.Fd()), "", flags, &unix.MountAttr{Attr_set: set, Attr_clr: unset})
}

func setPropagation(mnt *os.File, p propagation) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if p.recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(int(mnt.Fd()), "", flags, &unix.MountAttr{Propagation: p.kind})
}
