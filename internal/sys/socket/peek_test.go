package socket_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/socket"
)

// A look that ends without having seen anything takes no time from whoever reads next.
func TestPeekLeavesNoDeadline(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for _, patience := range []time.Duration{0, 20 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if n, err := socket.Peek(ctx, server.(*net.TCPConn), make([]byte, 8)); err == nil {
			t.Errorf("%d bytes of a caller that says nothing", n)
		}
		cancel()
	}
	if _, err := client.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8)
	if n, err := socket.Peek(t.Context(), server.(*net.TCPConn), b); err != nil || string(b[:n]) != "late" {
		t.Errorf("the next look sees %q, %v", b[:n], err)
	}
	if n, err := server.Read(b); err != nil || string(b[:n]) != "late" {
		t.Errorf("a read gets %q, %v", b[:n], err)
	}
}
