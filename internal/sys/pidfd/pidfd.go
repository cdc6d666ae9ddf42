// Package pidfd names a process by a descriptor, which, unlike its number, never comes to mean another process.
package pidfd

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Open returns a descriptor of a process (Linux 5.3). It needs no rights. A process that has ended but was not waited
// for can still be opened; an unknown one is os.ErrProcessDone.
func Open(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	// EINVAL: the number names no process, but still a session or a group (up to Linux 6.14).
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("open process %d: %w", pid, os.ErrProcessDone)
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, os.NewSyscallError("pidfd_open", err))
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("pidfd:%d", pid)), nil
}

// GetFD duplicates descriptor fd of the process into this one (Linux 5.6). It needs the right to trace the process.
func GetFD(process *os.File, fd int) (*os.File, error) {
	got, err := unix.PidfdGetfd(int(process.Fd()), fd, 0)
	if err != nil {
		return nil, fmt.Errorf("take descriptor %d of %s: %w", fd, process.Name(), os.NewSyscallError("pidfd_getfd", err))
	}
	return os.NewFile(uintptr(got), fmt.Sprintf("%s/fd/%d", process.Name(), fd)), nil
}

// Signal sends a signal; os.ErrProcessDone when the process has ended.
func Signal(process *os.File, sig unix.Signal) error {
	err := unix.PidfdSendSignal(int(process.Fd()), sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %s: %w", process.Name(), os.ErrProcessDone)
	}
	if err != nil {
		return fmt.Errorf("signal %s: %w", process.Name(), os.NewSyscallError("pidfd_send_signal", err))
	}
	return nil
}

// Wait returns when the process has ended. It does not reap it, and the process need not be a child.
func Wait(ctx context.Context, process *os.File) error {
	for {
		fds := []unix.PollFd{{Fd: int32(process.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, pollMilliseconds)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for %s: %w", process.Name(), os.NewSyscallError("poll", err))
		}
		if n > 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// pollMilliseconds bounds how long a cancelled Wait goes on.
const pollMilliseconds = 100
