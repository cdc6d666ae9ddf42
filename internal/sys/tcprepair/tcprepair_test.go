package tcprepair

import (
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/testutil"
)

// connect returns both ends of a connection over the loopback.
func connect(t *testing.T) (server, client *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// repair does to a socket what CRIU does before it saves it.
func repair(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const recvQueue, sendQueue = 1, 2 // linux/tcp.h
	err = raw.Control(func(fd uintptr) {
		for _, queue := range []int{recvQueue, sendQueue} {
			if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON); err != nil {
				t.Fatal(err)
			}
			if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue); err != nil {
				t.Fatal(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestConnectionInRepairGoesOnWithoutLoss(t *testing.T) {
	testutil.Root(t)
	server, client := connect(t)
	// Unread input must survive the repair, and what comes during it too.
	if _, err := client.Write([]byte("one ")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	repair(t, server)
	if _, err := client.Write([]byte("two ")); err != nil {
		t.Fatal(err)
	}
	n, err := EndAll([]int{os.Getpid()})
	if err != nil || n != 1 {
		t.Fatalf("ended on %d sockets, %v", n, err)
	}
	if _, err := client.Write([]byte("three")); err != nil {
		t.Fatal(err)
	}
	if err := server.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var got []byte
	buf := make([]byte, 64)
	for len(got) < len("one two three") {
		n, err := server.Read(buf)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got = append(got, buf[:n]...)
	}
	if string(got) != "one two three" {
		t.Errorf("got %q", got)
	}
	if _, err := server.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if n, err := client.Read(buf); err != nil || string(buf[:n]) != "answer" {
		t.Errorf("answer %q, %v", buf[:n], err)
	}
	if n, err := EndAll([]int{os.Getpid()}); err != nil || n != 0 {
		t.Errorf("a second time: %d sockets, %v", n, err)
	}
}

func TestDeadProcessIsNamed(t *testing.T) {
	if _, err := EndAll([]int{1 << 30}); err == nil {
		t.Error("no error for a process that is not there")
	}
}
