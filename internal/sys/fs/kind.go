package fs

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Kind returns the type of the filesystem that a path leads into (statfs's f_type), and its id.
func Kind(path string) (kind int64, id uint64, err error) {
	var s unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(path, &s) }); err != nil {
		return 0, 0, fmt.Errorf("stat filesystem of %s: %w", path, err)
	}
	return s.Type, uint64(uint32(s.Fsid.Val[0])) | uint64(uint32(s.Fsid.Val[1]))<<32, nil
}

// Tmpfs is the type of filesystems in memory, and of the devices' own (devtmpfs).
const Tmpfs = unix.TMPFS_MAGIC

// Not in x/sys.
const (
	configfsMagic = 0x62656570
	fusectlMagic  = 0x65735543
	mqueueMagic   = 0x19800202
)

// IsKernels says whether the kernel makes up what is in filesystems of a kind: it is about this host, and no file to be
// copied. The devices' own calls itself a tmpfs, and is not among them.
func IsKernels(kind int64) bool {
	switch kind {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.SELINUX_MAGIC, unix.BPF_FS_MAGIC, unix.PSTOREFS_MAGIC,
		unix.EFIVARFS_MAGIC, unix.BINFMTFS_MAGIC, unix.NSFS_MAGIC, unix.RDTGROUP_SUPER_MAGIC, configfsMagic, fusectlMagic, mqueueMagic:
		return true
	}
	return false
}

// IsMessageQueue tells whether an open file is a POSIX message queue.
func IsMessageQueue(fd int) bool {
	var s unix.Statfs_t
	return retry(func() error { return unix.Fstatfs(fd, &s) }) == nil && s.Type == mqueueMagic
}
