package tmpfs

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/sys/mountns"
)

// CheckOptions returns the options of a superblock, as mountinfo has them, in the form that Mount takes. Read-only is none of
// them: see Seal. Nor are huge pages, which would take more at the peer than what is in them.
func CheckOptions(options string) (string, error) {
	var known []string
	for option := range strings.SplitSeq(options, ",") {
		key, _, _ := strings.Cut(option, "=")
		switch key {
		case "rw", "ro", "":
		case "size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "inode32", "inode64":
			known = append(known, option)
		default:
			return "", fmt.Errorf("%w: %s", ErrOptions, option)
		}
	}
	return strings.Join(known, ","), nil
}

// Device is the number that Look tells, from those of mountinfo.
func Device(major, minor int) uint64 {
	return unix.Mkdev(uint32(major), uint32(minor))
}

// Look tells of the mount that process pid sees at a path: the device of its file system, and how much is in that, as Limit
// counts it. Of one without a size of its own nobody knows how much it is: it has the largest number.
func Look(pid int, at string) (device uint64, size int64, err error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root%s", pid, at), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, &os.PathError{Op: "look at mount", Path: at, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &fs)); err != nil {
		return 0, 0, &os.PathError{Op: "look at mount", Path: at, Err: err}
	}
	if fs.Blocks == 0 || fs.Files == 0 {
		return st.Dev, math.MaxInt64, nil
	}
	return st.Dev, int64(fs.Blocks-fs.Bfree)*fs.Bsize + int64(fs.Files-fs.Ffree)*nameCost, nil
}

// Open opens the root of the mount that process pid sees at a path, without what is mounted inside it. The caller closes it.
// Needs CAP_SYS_ADMIN.
func Open(pid int, at string) (*os.File, error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return nil, fmt.Errorf("open mount namespace: %w", err)
	}
	defer ns.Close()
	// The process's root need not be the namespace's.
	root, err := os.Open(fmt.Sprintf("/proc/%d/root", pid))
	if err != nil {
		return nil, fmt.Errorf("open root of process: %w", err)
	}
	defer root.Close()
	var tree int
	err = mountns.In(ns, func() (err error) {
		tree, err = unix.OpenTree(int(root.Fd()), "."+at, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open mount %s: %w", at, err)
	}
	defer unix.Close(tree)
	fd, err := unix.Openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open mount %s: %w", at, err)
	}
	return os.NewFile(uintptr(fd), at), nil
}

// Mount mounts an empty one, which mountinfo says to be of that source, and whose devices nobody can open before Finish. The
// options are checked.
func Mount(source, dir, options string) error {
	options, err := CheckOptions(options)
	if err != nil {
		return err
	}
	if err := unix.Mount(source, dir, "tmpfs", unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make tmpfs private: %w", err)
	}
	return nil
}

// Finish lets the devices of one that is filled be opened, where it is seen by whom it is for.
func Finish(dir string) error {
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("give tmpfs on %s its devices: %w", dir, err)
	}
	return nil
}

// Seal makes the whole file system read-only.
func Seal(dir string) error {
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make tmpfs on %s read-only: %w", dir, err)
	}
	return nil
}
