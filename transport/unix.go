package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/sys/socket"
)

type unixDialer struct {
	addr    Address
	timeout time.Duration
}

func (d *unixDialer) String() string { return d.addr.String() }

func (d *unixDialer) DialConn(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{Timeout: d.timeout}
	conn, err := dialer.DialContext(ctx, "unix", d.addr.Path)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	c, err := trust(conn, func() {})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dial: %w", err), conn.Close())
	}
	return c, nil
}

func listenUnix(addr Address, o *ListenOptions) (Acceptor, error) {
	if err := removeStale(addr.Path); err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "unix", addr.Path)
	if err != nil {
		return nil, err
	}
	// A second fence: the credentials are checked whatever the mode is.
	if err := os.Chmod(addr.Path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	greet := func(_ context.Context, conn net.Conn, release func()) (net.Conn, string, error) {
		c, err := trust(conn, release)
		if err != nil {
			return nil, "", err
		}
		return c, c.peer, nil
	}
	return newAcceptor(l, addr.String(), greet, nil, o), nil
}

// removeStale removes a socket that its listener has left behind, and nothing else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is in the way and no socket: remove it", path)
	}
	conn, err := new(net.Dialer).DialContext(context.Background(), "unix", path)
	if err == nil {
		_ = conn.Close() // it only had to succeed
		return fmt.Errorf("another process listens there: %w", syscall.EADDRINUSE)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// unixConn is a stream socket whose other end belongs to this user or to root. The embedded connection keeps writev.
type unixConn struct {
	*net.UnixConn
	peer    string
	release func()
}

func (c *unixConn) PeerName() string { return c.peer }

func (c *unixConn) Close() error {
	defer c.release()
	return c.UnixConn.Close()
}

// trust checks who is at the other end. Root may be there for anybody; anybody may be there for nobody else.
func trust(conn net.Conn, release func()) (*unixConn, error) {
	c := conn.(*net.UnixConn)
	cred, err := socket.Peer(c)
	if err != nil {
		return nil, err
	}
	if self := os.Geteuid(); cred.UID != 0 && int64(cred.UID) != int64(self) {
		return nil, fmt.Errorf("%w: its user id is %d and ours %d (process %d)", ErrForeignUser, cred.UID, self, cred.PID)
	}
	return &unixConn{UnixConn: c, peer: fmt.Sprintf("user %d", cred.UID), release: release}, nil
}
