package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Enter makes the root the process's own "/", and the old one unreachable.
func (r *Root) Enter() error {
	defer r.tree.dir.Close()
	if err := unix.Fchdir(int(r.tree.dir.Fd())); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	var err error
	switch {
	case !r.ownMounts:
		err = chroot()
	case r.o.NoPivot:
		err = moveRoot(r.tree.path)
	default:
		err = pivot()
	}
	if err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if kind, flags := r.propagation(); r.ownMounts && kind != unix.MS_SLAVE && kind != unix.MS_PRIVATE {
		// Not before: it would have been applied to the host's root.
		if err := unix.Mount("", "/", "", kind|flags, ""); err != nil {
			return fmt.Errorf("set propagation of the root: %w", err)
		}
	}
	if r.ownMounts && r.ownsDev() {
		return reopenNull()
	}
	return nil
}

// pivot swaps the roots, standing in the new one, with both on ".": the old root ends up under the working directory, so no directory for it is
// needed in the image.
func pivot() error {
	old, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer old.Close()
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Fchdir(int(old.Fd())); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	// Slave, so that the unmount below does not travel to the host; not private, which would pin the host's mounts.
	if err := unix.Mount("", ".", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("detach the old root from the host: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	return os.NewSyscallError("chdir", unix.Chdir("/"))
}

// moveRoot is for hosts whose root is a ramfs, where pivot_root(2) does not work. The host's full procfs and sysfs must
// go first: while they are reachable in the namespace the kernel would let the container mount new ones unmasked.
func moveRoot(path string) error {
	mounts, err := mountinfo.GetMounts(func(info *mountinfo.Info) (skip, stop bool) {
		kernelTree := info.FSType == "proc" || info.FSType == "sysfs"
		return info.Root != "/" || !kernelTree || strings.HasPrefix(info.Mountpoint, path+"/"), false
	})
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	for _, info := range mounts {
		if err := unix.Mount("", info.Mountpoint, "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
			if errors.Is(err, unix.ENOENT) {
				continue // went away with its parent
			}
			return fmt.Errorf("detach %s from the host: %w", info.Mountpoint, err)
		}
		err := unix.Unmount(info.Mountpoint, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
			err = unix.Mount("tmpfs", info.Mountpoint, "tmpfs", 0, "") // locked by a user namespace: cover it
		}
		if err != nil {
			return fmt.Errorf("hide %s: %w", info.Mountpoint, err)
		}
	}
	if err := unix.Mount(path, "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	return chroot()
}

func chroot() error {
	if err := unix.Chroot("."); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	return os.NewSyscallError("chdir", unix.Chdir("/"))
}
