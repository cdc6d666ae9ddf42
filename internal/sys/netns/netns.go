// Package netns makes, opens and enters network namespaces.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// New makes a network namespace that lives as long as the returned file, or a process in it. It needs CAP_SYS_ADMIN.
// The calling thread stays in its own namespace.
func New() (ns *os.File, err error) {
	runtime.LockOSThread()
	home, err := Current()
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, os.NewSyscallError("unshare network namespace", err)
	}
	defer func() {
		err = errors.Join(err, leave(home))
		if err != nil && ns != nil {
			ns.Close()
			ns = nil
		}
	}()
	return Current()
}

// Current opens the network namespace of the calling thread.
func Current() (*os.File, error) {
	return Open("/proc/thread-self/ns/net")
}

// OfProcess opens the network namespace of a process.
func OfProcess(pid int) (*os.File, error) {
	return Open(fmt.Sprintf("/proc/%d/ns/net", pid))
}

// Open opens a network namespace by its path: a bind mount as `ip netns` makes it, or /proc/PID/ns/net.
func Open(path string) (*os.File, error) {
	ns, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return ns, nil
}

// Inode is the number by which the kernel and CRIU name the namespace: net:[INODE].
func Inode(ns *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: ns.Name(), Err: err}
	}
	return st.Ino, nil
}

// Do calls f on a thread that is in the namespace ns. Sockets that f opens stay there; goroutines that it starts do not.
func Do(ns *os.File, f func() error) (err error) {
	runtime.LockOSThread()
	home, err := Current()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return os.NewSyscallError("enter network namespace", err)
	}
	defer func() { err = errors.Join(err, leave(home)) }()
	return f()
}

// leave brings the thread home. A thread that cannot return stays locked, so that it ends with its goroutine and no
// other code ever runs in the wrong namespace. Threads that did return are kept: the end of a thread is the parent's
// death to children started on it with a parent-death signal.
func leave(home *os.File) error {
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("return to network namespace", err)
	}
	runtime.UnlockOSThread()
	return nil
}
