package process

import (
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// HolderName is what the process that Hold makes calls itself.
const HolderName = "migrate:hold"

// Hold makes a process that shares this one's table of descriptors (CLONE_FILES) and sleeps for ever: a descriptor that any
// system call installs here is open there at the same moment and under the same number, and stays open when this process
// is killed. It has a session of its own and every signal blocked, so only SIGKILL ends it. It is a child of this
// process's parent, who reaps it. Its memory is a copy of this process's, so make it early.
//
// The kernel itself writes the pid to *pid while it makes the process: in memory that others share it cannot be lost.
func Hold(pid *uint32) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// The child has Go's signal handlers and none of its threads.
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return os.NewSyscallError("block signals", err)
	}
	var name [16]byte
	copy(name[:], HolderName)
	errno := forkHolder(pid, &name)
	err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	if errno != 0 {
		return errors.Join(os.NewSyscallError("clone", errno), err)
	}
	return err
}

//go:norace
//go:nosplit
func forkHolder(pid *uint32, name *[16]byte) unix.Errno {
	const flags = unix.CLONE_FILES | unix.CLONE_PARENT | unix.CLONE_PARENT_SETTID
	child, _, errno := unix.RawSyscall6(unix.SYS_CLONE, flags, 0, uintptr(unsafe.Pointer(pid)), 0, 0, 0)
	if child != 0 || errno != 0 {
		return errno
	}
	// From here on nothing that needs Go's scheduler or its heap.
	_, _, _ = unix.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0)
	for {
		_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}
