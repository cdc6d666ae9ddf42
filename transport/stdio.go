package transport

import (
	"errors"
	"net"
	"os"
	"time"

	"github.com/livemigrate/migrate/internal/sys/socket"
)

// StdioConn makes a connection of the input and output that a program was started with, as sshd starts
// `migrate receive`. It takes both files over: standard descriptors then lead to /dev/null, so that no stray print gets
// into the stream. Deadlines work on pipes, sockets and terminals.
func StdioConn(in, out *os.File) (net.Conn, error) {
	if socket.Same(in, out) { // sshd's way: one socket for both
		conn, err := net.FileConn(in)
		if err != nil {
			return nil, err
		}
		return conn, errors.Join(socket.Release(in), socket.Release(out))
	}
	r, err := socket.Stream(in)
	if err != nil {
		return nil, err
	}
	w, err := socket.Stream(out)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &stdioConn{in: r, out: w}, errors.Join(socket.Release(in), socket.Release(out))
}

type stdioConn struct {
	in, out *os.File
}

func (c *stdioConn) Read(b []byte) (int, error)         { return c.in.Read(b) }
func (c *stdioConn) Write(b []byte) (int, error)        { return c.out.Write(b) }
func (c *stdioConn) CloseWrite() error                  { return c.out.Close() }
func (c *stdioConn) LocalAddr() net.Addr                { return stdioAddr{} }
func (c *stdioConn) RemoteAddr() net.Addr               { return stdioAddr{} }
func (c *stdioConn) SetReadDeadline(t time.Time) error  { return c.in.SetReadDeadline(t) }
func (c *stdioConn) SetWriteDeadline(t time.Time) error { return c.out.SetWriteDeadline(t) }

func (c *stdioConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *stdioConn) Close() error {
	err := c.out.Close()
	if errors.Is(err, os.ErrClosed) {
		err = nil // by CloseWrite
	}
	return errors.Join(c.in.Close(), err)
}

type stdioAddr struct{}

func (stdioAddr) Network() string { return "stdio" }
func (stdioAddr) String() string  { return "stdio" }
