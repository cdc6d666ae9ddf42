package socket

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Bound tells whether some process has a stream or seqpacket socket at the path. It does not connect: a server that accepts
// once would take that for its client.
func Bound(path string) (bool, error) {
	// A path may be longer than an address has room for.
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("look for a server at %s: %w", path, err)
	}
	defer unix.Close(dir)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(dir) + "/" + filepath.Base(path)})
	switch {
	case errors.Is(err, unix.EPROTOTYPE): // of another type: it is there
		return true, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED): // none, or one that nobody has any more
		return false, nil
	case err == nil:
		return false, fmt.Errorf("look for a server at %s: a datagram socket", path)
	}
	return false, fmt.Errorf("look for a server at %s: %w", path, err)
}
