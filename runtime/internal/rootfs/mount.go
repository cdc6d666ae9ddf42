package rootfs

import (
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/selinux/go-selinux/label"
	"golang.org/x/sys/unix"
)

// mountAll mounts the spec's list in its order, for one mount may lie inside an earlier one.
func (r *Root) mountAll() error {
	for i := range r.o.Spec.Mounts {
		m, err := parseMount(&r.o.Spec.Mounts[i], r.o.Bundle)
		if err != nil {
			return err
		}
		if err := r.mountOne(m, i); err != nil {
			return fmt.Errorf("error mounting %q to rootfs at %q (%s): %w", m.source, m.dest, m.fstype, err)
		}
	}
	return nil
}

func (r *Root) mountOne(m *mount, index int) error {
	switch {
	case m.bind:
		return r.mountBind(m, index)
	case m.fstype == "cgroup":
		return r.mountCgroup(m)
	default:
		return r.mountFresh(m)
	}
}

// mountFresh mounts a filesystem that does not come from the host's tree.
func (r *Root) mountFresh(m *mount) error {
	point, existed, err := r.tree.mountPoint(m, nil)
	if err != nil {
		return err
	}
	defer point.Close()

	options := append([]string{}, m.superblock...)
	if m.fstype == "tmpfs" && existed {
		// An image says what rights its /tmp has; a tmpfs keeps them. An own "mode" comes later and wins.
		var st unix.Stat_t
		if err := unix.Fstat(int(point.Fd()), &st); err != nil {
			return fmt.Errorf("stat mount point: %w", err)
		}
		options = append(options, fmt.Sprintf("mode=%04o", st.Mode&0o7777))
	}
	options = append(options, m.options...)
	attrs := m.set
	// Files are still to be made in /dev and in a tmpfs: these become read-only at the end.
	late := attrs&unix.MOUNT_ATTR_RDONLY != 0 && (m.fstype == "tmpfs" || m.dest == "/dev")
	if late {
		attrs &^= unix.MOUNT_ATTR_RDONLY
	}
	if attrs&unix.MOUNT_ATTR_RDONLY != 0 && !isKernelTree(m.fstype) {
		options = append(options, "ro") // a device that cannot be written must not be opened for writing
	}
	if l := r.o.Spec.Linux.MountLabel; l != "" && m.fstype != "proc" && m.fstype != "sysfs" && m.fstype != "mqueue" {
		options = append(options, label.FormatMountLabel("", l))
	}
	mnt, err := r.newMount(m, options, attrs)
	if err != nil {
		return err
	}
	if m.copyUp {
		if err := copyUp(point, mnt); err != nil {
			return errors.Join(fmt.Errorf("copy up: %w", err), mnt.Close())
		}
	}
	if err := r.finishMount(m, mnt, point); err != nil {
		return errors.Join(err, mnt.Close())
	}
	if m.fstype == "mqueue" && r.o.Spec.Linux.MountLabel != "" {
		err = label.Relabel(fmt.Sprintf("/proc/self/fd/%d", mnt.Fd()), r.o.Spec.Linux.MountLabel, false)
	}
	if late {
		r.readOnlyLate = append(r.readOnlyLate, mnt)
		return err
	}
	return errors.Join(err, mnt.Close())
}

func (r *Root) newMount(m *mount, options []string, attrs uint64) (*os.File, error) {
	for _, option := range options {
		if len(option) >= maxOption {
			return legacy(m.fstype, m.source, options, attrs, r.tree.path)
		}
	}
	return fresh(m.fstype, m.source, options, attrs)
}

// finishMount puts the mount in its place and applies what it can only have there.
func (r *Root) finishMount(m *mount, mnt, point *os.File) error {
	if err := attach(mnt, point); err != nil {
		return err
	}
	if m.recSet|m.recClear != 0 {
		if err := setAttributes(mnt, m.recSet, m.recClear, true); err != nil {
			return fmt.Errorf("set attributes recursively: %w", err)
		}
	}
	for _, p := range m.propagation {
		if err := setPropagation(mnt, p); err != nil {
			return fmt.Errorf("set propagation %#x: %w", p.kind, err)
		}
	}
	return nil
}

// isKernelTree says that the filesystem shows the kernel's own state: "ro" of its superblock would be everybody's.
func isKernelTree(fstype string) bool {
	switch fstype {
	case "proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts", "securityfs", "debugfs", "tracefs", "bpf":
		return true
	}
	return false
}
