package sdnotify

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// writeTimeout is how long the service manager may have its socket full: Close waits for a write that is under way.
const writeTimeout = 5 * time.Second

// manager is the service manager's socket.
type manager struct {
	name string
	mu   sync.Mutex // of conn, and of writing
	conn *net.UnixConn
}

func connect(name string) (*manager, error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	return &manager{name: name, conn: conn}, nil
}

// write sends one message. The socket behind the name is another after a restart of the service manager, so what fails is
// tried once more at a new one.
func (m *manager) write(text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.try(text)
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.name, Net: "unixgram"})
	if err != nil {
		return err
	}
	_ = m.conn.Close()
	m.conn = conn
	return m.try(text)
}

func (m *manager) try(text string) error {
	if err := m.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := m.conn.Write([]byte(text))
	return err
}

// send passes a descriptor along. Go's own call for it refuses connected datagram sockets.
func (m *manager) send(text string, file *os.File) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	conn, err := m.conn.SyscallConn()
	if err != nil {
		return err
	}
	rights := syscall.UnixRights(int(file.Fd()))
	var sent error
	err = conn.Write(func(fd uintptr) bool {
		sent = syscall.Sendmsg(int(fd), []byte(text), rights, nil, syscall.MSG_NOSIGNAL)
		return !errors.Is(sent, syscall.EAGAIN)
	})
	return errors.Join(err, sent)
}

func (m *manager) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conn.Close()
}
