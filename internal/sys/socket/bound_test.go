package socket_test

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/socket"
)

func TestServerIsSeenWithoutBeingCalled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server.socket")
	if bound, err := socket.Bound(path); bound || err != nil {
		t.Errorf("no socket: %v, %v", bound, err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	if bound, err := socket.Bound(path); !bound || err != nil {
		t.Errorf("a server: %v, %v", bound, err)
	}
	if err := listener.SetDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := listener.Accept(); err == nil {
		t.Error("the server was called")
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	if bound, err := socket.Bound(path); bound || err != nil {
		t.Errorf("a socket that nobody has: %v, %v", bound, err)
	}
	if _, err := socket.Bound(filepath.Join(t.TempDir(), strings.Repeat("long/", 30))); err == nil {
		t.Error("no directory, and no error")
	}
}
