// Package sealed gives the program to run as a container's init: the runtime's own, in a form that nothing inside a
// container can write to. Init keeps running it until the container's program is executed, and /proc/PID/exe leads to
// it: without this a container overwrites the runtime on the host (CVE-2019-5736).
package sealed

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// memfdSeals forbid every change of the copy, and of the seals themselves.
const memfdSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// Self opens the running program sealed; the caller closes it after the process that executes it was started. An
// overlay that has only lower layers costs no copy and needs root; else the program is copied into a sealed memfd. When
// neither works the error says so, and nothing may be started.
func Self(log *slog.Logger) (*os.File, error) {
	const exe = "/proc/self/exe"
	if self, err := os.OpenFile(exe, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		if isSealed(self) {
			return self, nil
		}
		_ = self.Close()
	}
	over, overErr := overlay(exe)
	if overErr == nil {
		// runc's words. Its tests look for both lines where there is an overlay: "clone" stands for either kind of copy.
		log.Debug("runc exeseal: using overlayfs for sealed /proc/self/exe")
		log.Debug("runc exeseal: using /proc/self/exe clone")
		return over, nil
	}
	copied, copyErr := memfd(exe)
	if copyErr != nil {
		return nil, fmt.Errorf("seal own program: %w", errors.Join(overErr, copyErr))
	}
	log.Debug("runc exeseal: using /proc/self/exe clone", "reason", overErr)
	return copied, nil
}

// isSealed says that the running program is such a memfd already.
func isSealed(f *os.File) bool {
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	return err == nil && seals&memfdSeals == memfdSeals
}

// overlay shows the program's directory through an overlayfs without an upper layer. Unlike a read-only bind it cannot
// be remounted writable, for there is nothing to write to. It wants two layers: the second is an empty directory.
func overlay(exe string) (*os.File, error) {
	path, err := os.Readlink(exe)
	if err != nil {
		return nil, err
	}
	dir, name := filepath.Split(path)
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen overlay", err)
	}
	defer unix.Close(fs)
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	layers := escape.Replace(filepath.Clean(dir)) + ":/sys/fs"
	if err := unix.FsconfigSetString(fs, "lowerdir", layers); err != nil {
		return nil, os.NewSyscallError("fsconfig lowerdir", err)
	}
	_ = unix.FsconfigSetString(fs, "xino", "off") // only spares the kernel's log a line
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, os.NewSyscallError("fsconfig create", err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(mnt)
	fd, err := unix.Openat(mnt, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open in overlay", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func memfd(exe string) (*os.File, error) {
	src, err := os.Open(exe)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	fd, err := unix.MemfdCreate("migrate", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // MFD_EXEC is new in Linux 6.3
		fd, err = unix.MemfdCreate("migrate", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	dst := os.NewFile(uintptr(fd), "migrate")
	if err := sendfile(dst, src); err != nil {
		return nil, errors.Join(fmt.Errorf("copy program: %w", err), dst.Close())
	}
	if err := unix.Fchmod(fd, 0o755); err != nil {
		return nil, errors.Join(os.NewSyscallError("fchmod", err), dst.Close())
	}
	if _, err := unix.FcntlInt(dst.Fd(), unix.F_ADD_SEALS, memfdSeals); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl(F_ADD_SEALS)", err), dst.Close())
	}
	// A file that is open for writing cannot be executed.
	sealed, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	return sealed, errors.Join(err, dst.Close())
}

// sendfile copies a file in the kernel. Go's own io.Copy would read and write between these two kinds of files.
func sendfile(dst, src *os.File) error {
	for {
		n, err := unix.Sendfile(int(dst.Fd()), int(src.Fd()), nil, 1<<30)
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("sendfile", err)
		}
		if n == 0 && err == nil {
			return nil
		}
	}
}
