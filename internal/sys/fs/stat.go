package fs

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Time is a file's time as the kernel keeps it. An int64 of nanoseconds would end in 2262, ext4 ends in 2446.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Before says whether t is earlier than u.
func (t Time) Before(u Time) bool {
	return t.Sec < u.Sec || t.Sec == u.Sec && t.Nsec < u.Nsec
}

// Add returns t+d.
func (t Time) Add(d time.Duration) Time {
	ns := int64(t.Nsec) + int64(d%time.Second)
	sec := t.Sec + int64(d/time.Second) + ns/int64(time.Second)
	ns %= int64(time.Second)
	if ns < 0 {
		sec, ns = sec-1, ns+int64(time.Second)
	}
	return Time{Sec: sec, Nsec: uint32(ns)}
}

// Stat is what statx says about an inode.
type Stat struct {
	Mode   uint32 // type and permissions, as in st_mode
	UID    uint32
	GID    uint32
	Nlink  uint32
	Ino    uint64
	Dev    uint64
	Rdev   uint64
	Size   int64
	Blocks int64 // of 512 bytes
	Mtime  Time
	Ctime  Time
	// Mountpoint is set where another filesystem is mounted (STATX_ATTR_MOUNT_ROOT, since Linux 5.8).
	Mountpoint bool
}

// Type returns the S_IFMT bits.
func (s *Stat) Type() uint32 { return s.Mode & unix.S_IFMT }

// IsDir says whether it is a directory.
func (s *Stat) IsDir() bool { return s.Type() == unix.S_IFDIR }

// IsRegular says whether it is a regular file.
func (s *Stat) IsRegular() bool { return s.Type() == unix.S_IFREG }

// IsSymlink says whether it is a symbolic link.
func (s *Stat) IsSymlink() bool { return s.Type() == unix.S_IFLNK }

// IsDevice says whether it is a character or block device.
func (s *Stat) IsDevice() bool {
	return s.Type() == unix.S_IFCHR || s.Type() == unix.S_IFBLK
}

// IsWhiteout says whether it is overlayfs's mark of a deleted name: a character device 0:0.
func (s *Stat) IsWhiteout() bool { return s.Type() == unix.S_IFCHR && s.Rdev == 0 }

// Same says whether two results are of the same inode.
func (s *Stat) Same(o *Stat) bool { return s.Ino == o.Ino && s.Dev == o.Dev }

// KernelDev is the device as the kernel, and /proc, count it: 20 bits of it are the minor number.
func (s *Stat) KernelDev() uint64 { return uint64(unix.Major(s.Dev))<<20 | uint64(unix.Minor(s.Dev)) }

// Unchanged says whether an inode has the same change time, size and number as before: its content and its attributes
// are then the same too, unless the change fell into the same tick of the clock or went through a writable mapping.
func (s *Stat) Unchanged(o *Stat) bool {
	return s.Ino == o.Ino && s.Ctime == o.Ctime && s.Size == o.Size
}

const statMask = unix.STATX_BASIC_STATS

func statx(fd int, name string, flags int) (Stat, error) {
	var x unix.Statx_t
	err := retry(func() error { return unix.Statx(fd, name, flags|unix.AT_SYMLINK_NOFOLLOW, statMask, &x) })
	if err != nil {
		return Stat{}, err
	}
	return Stat{
		Mode:       uint32(x.Mode),
		UID:        x.Uid,
		GID:        x.Gid,
		Nlink:      x.Nlink,
		Ino:        x.Ino,
		Dev:        unix.Mkdev(x.Dev_major, x.Dev_minor),
		Rdev:       unix.Mkdev(x.Rdev_major, x.Rdev_minor),
		Size:       int64(x.Size),
		Blocks:     int64(x.Blocks),
		Mtime:      Time{Sec: x.Mtime.Sec, Nsec: x.Mtime.Nsec},
		Ctime:      Time{Sec: x.Ctime.Sec, Nsec: x.Ctime.Nsec},
		Mountpoint: x.Attributes_mask&x.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0,
	}, nil
}

// Now is the coarse clock, the one that inodes are stamped with: a file whose ctime is not well before it may change
// again without its ctime telling.
func Now() Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
		now := time.Now()
		return Time{Sec: now.Unix(), Nsec: uint32(now.Nanosecond())}
	}
	return Time{Sec: ts.Sec, Nsec: uint32(ts.Nsec)}
}

// IsDirectory tells whether a path leads to a directory, through links too.
func IsDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR { //nolint:errorlint // a bare errno, straight from the system call
			return err
		}
	}
}
