package seqpacket

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Grip makes a child wait for a process that is gone. While it is closed, this process's end of the connection lies in the queue of
// a socket that the child has, and never reads: the end lives as long as the child does. Whoever waits for a message then waits
// until it is killed, where else it would read an end of file.
type Grip struct {
	near, far *os.File
	closed    bool
}

// NewGrip makes one that is open. The caller closes it.
func NewGrip() (*Grip, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket pair: %w", err)
	}
	return &Grip{near: os.NewFile(uintptr(fds[0]), "grip"), far: os.NewFile(uintptr(fds[1]), "grip-far")}, nil
}

// File is what the child has to inherit. It stays the grip's.
func (g *Grip) File() *os.File { return g.far }

// Hold closes the grip on the connection.
func (g *Grip) Hold(c *Conn) error {
	if g.closed {
		return nil
	}
	var err error
	control := func(fd uintptr) {
		err = unix.Sendmsg(int(g.near.Fd()), []byte{0}, unix.UnixRights(int(fd)), nil, unix.MSG_NOSIGNAL)
	}
	if controlErr := c.raw.Control(control); controlErr != nil {
		err = controlErr
	}
	if err != nil {
		return fmt.Errorf("hold connection: %w", err)
	}
	g.closed = true
	return nil
}

// Release opens it again. The end is dropped, not received: that takes no descriptor, of which this process may have no more, and
// nothing that could be waited for.
func (g *Grip) Release() error {
	if !g.closed {
		return nil
	}
	if _, _, _, _, err := unix.Recvmsg(int(g.far.Fd()), make([]byte, 1), nil, unix.MSG_DONTWAIT); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("release connection: %w", err)
	}
	g.closed = false
	return nil
}

// Close releases what is held, and frees the grip.
func (g *Grip) Close() error {
	return errors.Join(g.Release(), g.near.Close(), g.far.Close())
}
