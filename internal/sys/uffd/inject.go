package uffd

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/sys/ptrace"
)

// OpenIn makes a userfaultfd of another process: its thread tid makes one, this process takes it, and the thread closes its
// own again. It is UserModeOnly, so that the other process needs no rights, and API was not called yet. Errors are those of
// ptrace.Do; unix.EMFILE when the process has no descriptor to spare.
//
// A fork in another thread of the process at just that moment leaves a copy of the descriptor in the child.
func OpenIn(ctx context.Context, pid, tid int) (FD, error) {
	process, err := openThread(pid, tid)
	if err != nil {
		return -1, fmt.Errorf("open thread %d: %w", tid, err)
	}
	defer func() { _ = unix.Close(process) }()
	got := -1
	err = ptrace.Do(ctx, tid, func(t *ptrace.Thread) error {
		theirs, err := t.Call(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|UserModeOnly)
		if err != nil {
			return os.NewSyscallError("userfaultfd", err)
		}
		if got, err = unix.PidfdGetfd(process, int(theirs), 0); err != nil {
			err = os.NewSyscallError("pidfd_getfd", err)
		}
		_, closeErr := t.Call(unix.SYS_CLOSE, theirs)
		return errors.Join(err, os.NewSyscallError("close", closeErr))
	})
	if err != nil {
		if got >= 0 {
			_ = unix.Close(got)
		}
		return -1, err
	}
	return FD(got), nil
}

// openThread is a pidfd whose descriptors are the thread's. Before Linux 6.9 there are those of whole processes only, which
// have the same descriptors in all but the strangest programs.
func openThread(pid, tid int) (int, error) {
	fd, err := unix.PidfdOpen(tid, unix.PIDFD_THREAD)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.PidfdOpen(pid, 0)
	}
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return -1, os.ErrProcessDone
	}
	return fd, os.NewSyscallError("pidfd_open", err)
}
