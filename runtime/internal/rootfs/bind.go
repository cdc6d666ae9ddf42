package rootfs

import (
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mountBind makes a file or tree of the host appear in the container.
func (r *Root) mountBind(m *mount, index int) error {
	mnt, err := r.bindSource(m, index)
	if err != nil {
		return err
	}
	defer mnt.Close()
	point, _, err := r.tree.mountPoint(m, mnt)
	if err != nil {
		return err
	}
	defer point.Close()
	if err := setBindAttributes(m, mnt); err != nil {
		return err
	}
	return r.finishMount(m, mnt, point)
}

// bindSource clones the source's mounts as they are now: what the spec mounted earlier is seen. Only the starter of the
// container may open what a user namespace keeps from us, and only it may map ids.
func (r *Root) bindSource(m *mount, index int) (*os.File, error) {
	mnt, err := m.cloneSource(r.tree.dir, m.recursive)
	// EINVAL is a bind without its submounts in a user namespace: the kernel does not uncover what they hide.
	if index >= 0 && r.o.UserNS && !r.o.Rootless && (errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EINVAL)) {
		return r.o.OpenSource(index)
	}
	if err != nil || !m.idmap {
		return mnt, err
	}
	if err := r.o.MapSource(index, mnt); err != nil {
		return nil, errors.Join(err, mnt.Close())
	}
	return mnt, nil
}

// OpenSource opens the source of a bind mount as a detached tree of mounts, on behalf of an init that cannot. It is
// called in the runtime's mount namespace, where of the container's root only the files are seen, not what the spec mounts
// in it. userns is the namespace an id-mapped mount maps by; nil for another one.
// What the host mounts below the source later still arrives, what the container mounts never leaves.
func OpenSource(spec *specs.Mount, bundle, rootfs string, userns *os.File) (*os.File, error) {
	m, err := parseMount(spec, bundle)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenFile(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	defer root.Close()
	mnt, err := m.cloneSource(root, m.recursive)
	if err != nil {
		return nil, err
	}
	err = setPropagation(mnt, propagation{kind: unix.MS_SLAVE, recursive: true})
	if err != nil {
		err = fmt.Errorf("detach %s from the host: %w", m.source, err)
	} else if m.idmap {
		err = mapIDs(m, mnt, userns)
	}
	if err != nil {
		return nil, errors.Join(err, mnt.Close())
	}
	return mnt, nil
}

// MapSource gives the id-mapped mount, opened by an init that may not map, the ids of userns. It has to be detached.
func MapSource(spec *specs.Mount, bundle string, mnt, userns *os.File) error {
	m, err := parseMount(spec, bundle)
	if err != nil {
		return err
	}
	return mapIDs(m, mnt, userns)
}

func mapIDs(m *mount, mnt, userns *os.File) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if m.idmapRecurs {
		flags |= unix.AT_RECURSIVE
	}
	err := unix.MountSetattr(int(mnt.Fd()), "", flags,
		&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())})
	switch {
	case errors.Is(err, unix.EINVAL):
		err = fmt.Errorf("%w (the filesystem may not support id-mapped mounts on this kernel)", err)
	case errors.Is(err, unix.EPERM):
		err = fmt.Errorf("%w (a mount that has id maps already cannot be mapped again)", err)
	}
	if err != nil {
		return fmt.Errorf("map ids of %s: %w", m.source, err)
	}
	return nil
}
