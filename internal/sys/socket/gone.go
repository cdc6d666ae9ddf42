package socket

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Gone tells whether nobody is at the other end of a stream any more, whatever is still there to be read from it.
func Gone(conn syscall.Conn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, pollErr := unix.Poll(set, 0)
		gone = pollErr == nil && n > 0
	})
	return err != nil || gone
}
