package process

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Exit is how a process ended.
type Exit int

// The ways.
const (
	Lives  Exit = iota // it has not
	Exited             // by itself
	Killed             // by a signal
)

// ChildExit tells how a child ended, and leaves it to whoever is to reap it.
func ChildExit(pid int) (Exit, error) {
	const exited = 1 // CLD_EXITED
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return Lives, fmt.Errorf("look at child %d: %w", pid, os.NewSyscallError("waitid", err))
		case info.Signo == 0:
			return Lives, nil
		case info.Code == exited:
			return Exited, nil
		default:
			return Killed, nil
		}
	}
}
