package socket

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// HavePassSec tells whether a TCP socket can be asked for SO_PASSSEC. Linux 6.16 refuses to, and with it every CRIU
// before 4.2.1, which asks each socket.
func HavePassSec() (bool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	_, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSSEC)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	return err == nil, os.NewSyscallError("getsockopt", err)
}
