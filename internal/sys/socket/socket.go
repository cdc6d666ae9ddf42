// Package socket wraps the socket system calls that package net does not offer: pairs, the other end's credentials,
// and moving bytes from one socket to another without bringing them into this process.
package socket

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Pair returns the two ends of a unix stream: one to use here, one to hand to a child as its standard input and output.
// The caller closes both; the child's end right after the child has started, or its exit is never seen as an end of file.
func Pair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	child := os.NewFile(uintptr(fds[1]), "socketpair")
	file := os.NewFile(uintptr(fds[0]), "socketpair")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		child.Close()
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return conn.(*net.UnixConn), child, nil
}

// Credentials are those of the process at the other end, as the kernel recorded them when it connected or listened.
type Credentials struct {
	UID uint32
	PID int32
}

// Peer returns who is at the other end of a unix stream. Nobody can forge it: SO_PEERCRED is filled in by the kernel.
func Peer(c *net.UnixConn) (Credentials, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Credentials{}, fmt.Errorf("read peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = credErr
	}
	if err != nil {
		return Credentials{}, fmt.Errorf("read peer credentials: %w", err)
	}
	return Credentials{UID: cred.Uid, PID: cred.Pid}, nil
}

// Same reports whether both files are the same socket. sshd gives a command one socket as both its input and its
// output, which must then be shut down, not closed, to end one direction.
func Same(a, b *os.File) bool {
	ai, aerr := a.Stat()
	bi, berr := b.Stat()
	return aerr == nil && berr == nil && ai.Mode()&os.ModeSocket != 0 && os.SameFile(ai, bi)
}

// Release closes a file that a connection has taken a duplicate of. A standard descriptor is replaced by /dev/null
// instead: a file opened later would else get its number, and a stray print would go into that file.
func Release(f *os.File) error {
	fd, err := descriptor(f)
	if err != nil {
		return fmt.Errorf("release %s: %w", f.Name(), err)
	}
	if fd > 2 {
		return f.Close()
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("release descriptor %d: %w", fd, err)
	}
	defer null.Close()
	if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
		return fmt.Errorf("release descriptor %d: %w", fd, err)
	}
	return nil
}

// Stream returns a duplicate of f, non-blocking, so that reads and writes of it obey deadlines.
func Stream(f *os.File) (*os.File, error) {
	fd, err := descriptor(f)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	if err := unix.SetNonblock(dup, true); err != nil {
		unix.Close(dup)
		return nil, fmt.Errorf("make %s non-blocking: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(dup), f.Name()), nil
}

// descriptor is what (*os.File).Fd returns, without its side effect: Fd makes the file blocking again, and with it every
// duplicate, whose deadlines then do nothing.
func descriptor(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var fd int
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}
