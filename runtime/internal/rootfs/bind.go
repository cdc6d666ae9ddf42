package rootfs

import (
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bindFlags are the attributes that a bind mount with any option of its own gets as asked for, and only so.
const bindFlags = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// mountBind makes a file or tree of the host appear in the container.
func (r *Root) mountBind(m *mount, index int) error {
	mnt, err := r.bindSource(m, index)
	if err != nil {
		return err
	}
	defer mnt.Close()
	point, _, err := r.tree.mountPoint(m, func() (bool, error) {
		info, err := mnt.Stat()
		return err == nil && info.IsDir(), err
	})
	if err != nil {
		return err
	}
	defer point.Close()
	if err := setBindAttributes(m, mnt); err != nil {
		return err
	}
	return r.finishMount(m, mnt, point)
}

// bindSource clones the source's mounts. What only the starter of the container may open, because we are in a user
// namespace, or may map, is asked for.
func (r *Root) bindSource(m *mount, index int) (*os.File, error) {
	if m.idmap {
		return r.o.OpenSource(index)
	}
	mnt, err := clone(unix.AT_FDCWD, m.source, m.recursive)
	if errors.Is(err, os.ErrPermission) && r.o.UserNS && !r.o.Rootless {
		return r.o.OpenSource(index)
	}
	return mnt, err
}

// OpenSource opens the source of a bind mount as a detached tree of mounts, on behalf of an init that cannot. It is
// called in the runtime's mount namespace. userns is the namespace an id-mapped mount maps by; nil for another one.
// What the host mounts below the source later still arrives, what the container mounts never leaves.
func OpenSource(spec *specs.Mount, bundle string, userns *os.File) (*os.File, error) {
	m, err := parseMount(spec, bundle)
	if err != nil {
		return nil, err
	}
	mnt, err := clone(unix.AT_FDCWD, m.source, m.recursive)
	if err != nil {
		return nil, err
	}
	err = setPropagation(mnt, propagation{kind: unix.MS_SLAVE, recursive: true})
	if err == nil && m.idmap {
		flags := uint(unix.AT_EMPTY_PATH)
		if m.idmapRecurs {
			flags |= unix.AT_RECURSIVE
		}
		err = unix.MountSetattr(int(mnt.Fd()), "", flags,
			&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())})
		if errors.Is(err, unix.EINVAL) {
			err = fmt.Errorf("%w (the filesystem may not support id-mapped mounts on this kernel)", err)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map ids of %s: %w", m.source, err), mnt.Close())
	}
	return mnt, nil
}

// setBindAttributes gives the mount the asked-for flags. With any flag given the others are cleared, as mount(8) does
// it on "remount,bind"; flags that a user namespace inherited are locked and stay, unless they were explicitly unwanted.
func setBindAttributes(m *mount, mnt *os.File) error {
	if m.set|m.clear == 0 {
		return nil
	}
	err := setAttributes(mnt, m.set, m.clear|bindFlags&^m.set, false)
	if errors.Is(err, unix.EPERM) {
		if again := setAttributes(mnt, m.set, m.clear, false); again != nil {
			return fmt.Errorf("change flags of the bind mount, which are locked in this user namespace: %w", again)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("set flags of the bind mount: %w", err)
	}
	return nil
}
