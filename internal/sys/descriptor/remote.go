package descriptor

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Remote looks at the descriptors of another process. Each is duplicated for the length of a question, and nothing is
// changed: neither its mode nor its place in the process.
type Remote struct{ process int }

// OpenRemote names the process; it takes the right to trace it (Linux 5.6). os.ErrProcessDone when it has ended. Close it.
func OpenRemote(pid int) (*Remote, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		err = os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &Remote{fd}, nil
}

// Socket is what a socket is: SO_DOMAIN, SO_TYPE and SO_PROTOCOL.
func (r *Remote) Socket(number int) (domain, kind, protocol int, err error) {
	err = r.With(number, func(fd int) (err error) {
		for option, to := range map[int]*int{unix.SO_DOMAIN: &domain, unix.SO_TYPE: &kind, unix.SO_PROTOCOL: &protocol} {
			if *to, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, option); err != nil {
				return os.NewSyscallError("getsockopt", err)
			}
		}
		return nil
	})
	return domain, kind, protocol, err
}

// Pipe is how much a pipe holds at most, in bytes, and whether it keeps writes apart (O_DIRECT).
func (r *Remote) Pipe(number int) (size int, packets bool, err error) {
	err = r.With(number, func(fd int) error {
		var flags int
		if size, err = unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err == nil {
			flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		}
		packets = flags&unix.O_DIRECT != 0
		return os.NewSyscallError("fcntl", err)
	})
	return size, packets, err
}

// With asks on a duplicate, which is closed afterwards; EBADF when there is nothing under that number. It stays a plain number: an
// os.File would have Go's poller watch it.
func (r *Remote) With(number int, ask func(fd int) error) error {
	fd, err := unix.PidfdGetfd(r.process, number, 0)
	if err != nil {
		return fmt.Errorf("take descriptor %d: %w", number, os.NewSyscallError("pidfd_getfd", err))
	}
	return errors.Join(ask(fd), unix.Close(fd))
}

// Close ends the questions.
func (r *Remote) Close() error { return os.NewSyscallError("close", unix.Close(r.process)) }
