// Package mountns enters mount namespaces, and gives child processes a view of the file tree that differs in one place from
// everybody else's.
package mountns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do calls f on a thread in a mount namespace of its own, a copy of this process's. Children that f starts live there;
// goroutines that it starts do not. The thread ends with f, so a child must not ask for a parent-death signal. Needs
// CAP_SYS_ADMIN.
func Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("unshare mount namespace", err)
		}
		return f()
	})
}

// In calls f likewise in the mount namespace that ns is, at its root.
func In(ns *os.File, f func() error) error {
	return onThread(func() error {
		// The kernel lets nobody in who shares its root and working directory.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare working directory", err)
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("enter mount namespace", err)
		}
		return f()
	})
}

func onThread(f func() error) error {
	done := make(chan error, 1)
	go runOnThread(done, f)
	return <-done
}

// runOnThread never unlocks its thread: it ends with the goroutine, and no other code runs in the wrong namespace.
func runOnThread(done chan<- error, f func() error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// What the first thread sees is what /proc/self shows. While it is held here the next one is another.
		defer runtime.UnlockOSThread()
		done <- onThread(f)
		return
	}
	done <- f()
}

// Cover mounts an empty tmpfs over the directory. Call it in Do.
func Cover(dir string) error {
	if err := detach(dir); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
		return &os.PathError{Op: "mount tmpfs", Path: dir, Err: err}
	}
	return nil
}

// Replace mounts one file over another, which must exist. Call it in Do.
func Replace(target, by string) error {
	if err := detach(target); err != nil {
		return err
	}
	if err := unix.Mount(by, target, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "bind mount", Path: target, Err: err}
	}
	return nil
}

// detach keeps what is mounted at path from the other namespaces. Only the one mount that holds path stops sending: CRIU
// compares the others' propagation with the container's.
func detach(path string) error {
	for at := path; ; at = filepath.Dir(at) {
		err := unix.Mount("", at, "", unix.MS_SLAVE, "")
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINVAL) || at == "/" { // EINVAL: not a mount point
			return fmt.Errorf("keep mounts to ourselves: %w", &os.PathError{Op: "mount", Path: at, Err: err})
		}
	}
}
