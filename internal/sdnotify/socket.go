package sdnotify

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// socket is the container's. Its directory is locked as long as it is open, so that nobody replaces one that is in use.
type socket struct {
	*net.UnixConn
	dir *os.File
}

// listen goes by a descriptor of the directory: the path of a socket has 107 bytes at most, that of a state directory need
// not. The socket takes its place in one step: whoever finds one there may write to it.
func listen(path string) (_ *socket, err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.Close())
		}
	}()
	err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, ErrTaken
	}
	if err != nil {
		return nil, os.NewSyscallError("flock", err)
	}
	place := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	fresh := place + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err // of a start that was killed
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: fresh, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	if err = os.Chmod(fresh, 0o777); err == nil {
		err = os.Rename(fresh, place)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close(), os.Remove(fresh))
	}
	return &socket{UnixConn: conn, dir: dir}, nil
}

func (s *socket) Close() error { return errors.Join(s.UnixConn.Close(), s.dir.Close()) }
