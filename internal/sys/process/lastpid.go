package process

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lastPidFile is of the pid namespace of whoever writes to it, wherever its proc is mounted (pid_namespaces(7)).
const lastPidFile = "/proc/sys/kernel/ns_last_pid"

// SetLastPid makes last the pid that the pid namespace of process pid gave most recently: a process or thread that is born
// there without a wish gets the next free one after it. Only a member of a namespace can write that, so a process of ours
// joins it for the moment of one write. It needs CAP_SYS_ADMIN over the namespace, and a kernel with
// CONFIG_CHECKPOINT_RESTORE, as CRIU does.
func SetLastPid(pid, last int) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return fmt.Errorf("open pid namespace: %w", err)
	}
	defer ns.Close()
	file, err := os.OpenFile(lastPidFile, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set last pid: %w", err)
	}
	defer file.Close()
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread's children would be born in the other namespace for ever, so it ends with this function.
		runtime.LockOSThread()
		done <- writeInside(ns, file, []byte(strconv.Itoa(last)))
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("set last pid: %w", err)
	}
	return nil
}

func writeInside(ns, file *os.File, text []byte) error {
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWPID); err != nil {
		return os.NewSyscallError("enter pid namespace", err)
	}
	// The child has Go's signal handlers and none of its threads.
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return os.NewSyscallError("block signals", err)
	}
	child, errno := forkWriter(file.Fd(), text)
	err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	if errno != 0 {
		return errors.Join(os.NewSyscallError("clone", errno), err)
	}
	var status unix.WaitStatus
	for {
		_, werr := unix.Wait4(int(child), &status, unix.WALL, nil)
		if !errors.Is(werr, unix.EINTR) {
			err = errors.Join(err, os.NewSyscallError("wait4", werr))
			break
		}
	}
	if err == nil && status.ExitStatus() != 0 {
		err = &os.PathError{Op: "write", Path: lastPidFile, Err: unix.Errno(status.ExitStatus())}
	}
	return err
}

// forkWriter makes a child that writes text and ends with the error's number. It tells nobody of its end but who asks for
// it (no exit signal), so that whoever waits for any child here does not get it.
//
//go:norace
//go:nosplit
func forkWriter(fd uintptr, text []byte) (uintptr, unix.Errno) {
	child, _, errno := unix.RawSyscall6(unix.SYS_CLONE, 0, 0, 0, 0, 0, 0)
	if child != 0 || errno != 0 {
		return child, errno
	}
	// From here on nothing that needs Go's scheduler or its heap.
	_, _, errno = unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(text))), uintptr(len(text)))
	for {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(errno), 0, 0) // does not return
	}
}
