package rootfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// plainFlags are the attributes of a mount that are on or off by themselves; the atime modes are not.
const plainFlags = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC |
	unix.MOUNT_ATTR_NOSYMFOLLOW

// atimeFlags are the bits that say when reading changes a file's time.
const atimeFlags = unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NODIRATIME

// setBindAttributes gives the mount the asked-for flags, as "mount --bind -o remount" does (mount(8), and mount(2) of
// MS_REMOUNT|MS_BIND): with any flag given, wanted or unwanted, all others are cleared; the atime mode stays what it is at
// the source until another is asked for, and nodiratime alone means relatime.
func setBindAttributes(m *mount, mnt *os.File) error {
	if m.set|m.clear == 0 {
		return nil
	}
	set, unset := m.bindChange()
	err := setAttributes(mnt, set, unset, false)
	if errors.Is(err, unix.EPERM) {
		if err = setUnlocked(m, mnt); err != nil {
			return fmt.Errorf("change flags of the bind mount, which are locked in this user namespace: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("set flags of the bind mount: %w", err)
	}
	return nil
}

func (m *mount) bindChange() (set, unset uint64) {
	set = m.set & plainFlags
	if m.changesAtime() {
		set |= m.wantedAtime()
		unset = atimeFlags
	}
	return set, (unset | plainFlags) &^ (set &^ unix.MOUNT_ATTR__ATIME)
}

func (m *mount) changesAtime() bool { return m.atime || m.set&unix.MOUNT_ATTR_NODIRATIME != 0 }

// wantedAtime is zero for relatime.
func (m *mount) wantedAtime() uint64 {
	if !m.atime {
		return m.set & unix.MOUNT_ATTR_NODIRATIME
	}
	return m.set & atimeFlags
}

// setUnlocked is for a source whose flags came from another user namespace, which locked them: they are added to, never
// taken away. What the user said he does not want, or another atime mode, is refused; the kernel would pass over it.
func setUnlocked(m *mount, mnt *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(mnt.Fd()), &st); err != nil {
		return fmt.Errorf("read flags: %w", err)
	}
	now := atimeOf(uint64(st.Flags))
	if m.changesAtime() && m.wantedAtime() != now || m.clear&unix.MOUNT_ATTR_NODIRATIME&now != 0 ||
		m.refusesAtime && now&unix.MOUNT_ATTR__ATIME == unix.MOUNT_ATTR_NOATIME {
		return unix.EPERM
	}
	set := m.set & plainFlags
	// nosymfollow is never locked: not asked for, it goes, as everywhere.
	return setAttributes(mnt, set, (m.clear&plainFlags|unix.MOUNT_ATTR_NOSYMFOLLOW)&^set, false)
}

// atimeOf translates the flags of statfs(2).
func atimeOf(flags uint64) uint64 {
	var attrs uint64
	switch {
	case flags&unix.ST_NOATIME != 0:
		attrs = unix.MOUNT_ATTR_NOATIME
	case flags&unix.ST_RELATIME == 0:
		attrs = unix.MOUNT_ATTR_STRICTATIME
	}
	if flags&unix.ST_NODIRATIME != 0 {
		attrs |= unix.MOUNT_ATTR_NODIRATIME
	}
	return attrs
}
