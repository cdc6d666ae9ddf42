package transport_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/transport"
	"github.com/livemigrate/migrate/transport/transporttest"
)

func TestUnix(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) (transport.Dialer, transport.Acceptor) { return dialUnix(t) })
}

func dialUnix(t testing.TB) (transport.Dialer, transport.Acceptor) {
	t.Helper()
	addr, err := transport.ParseAddress("unix://" + filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	return meet(t, addr, nil, nil)
}

func meet(t testing.TB, addr transport.Address, d *transport.DialOptions, l *transport.ListenOptions) (transport.Dialer, transport.Acceptor) {
	t.Helper()
	acceptor, err := transport.Listen(addr, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { acceptor.Close() })
	addr, err = transport.ParseAddress(acceptor.Addr())
	if err != nil {
		t.Fatal(err)
	}
	dialer, err := transport.NewDialer(addr, d)
	if err != nil {
		t.Fatal(err)
	}
	return dialer, acceptor
}

func TestUnixStaleSocketIsReplaced(t *testing.T) {
	addr := transport.Address{Scheme: transport.Unix, Path: filepath.Join(t.TempDir(), "s")}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: addr.Path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as after kill -9
	l.Close()
	a, err := transport.Listen(addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if info, err := os.Stat(addr.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
	if _, err := transport.Listen(addr, nil); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a socket that is listened on: %v", err)
	}
}

func TestUnixFileInTheWayIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := transport.Listen(transport.Address{Scheme: transport.Unix, Path: path}, nil); err == nil {
		t.Error("listens on a file")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

func TestUnixOtherUserIsRefused(t *testing.T) {
	testutil.Root(t)
	dir, err := os.MkdirTemp("", "migrate-unix-") // t.TempDir's parent is closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	addr := transport.Address{Scheme: transport.Unix, Path: filepath.Join(dir, "s")}
	log := &lockedBuffer{}
	d, a := meet(t, addr, nil, &transport.ListenOptions{Log: slog.New(slog.NewTextHandler(log, nil))})
	if err := os.Chmod(addr.Path, 0o666); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	asUser(t, nobody, func() {
		conn, err := d.DialConn(t.Context())
		if err != nil {
			t.Errorf("a user cannot dial root: %v", err)
			return
		}
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("root's listener has not hung up: %v", err)
		}
	})
	a.Close()
	if !strings.Contains(log.String(), transport.ErrForeignUser.Error()) {
		t.Errorf("log %q does not say why", log.String())
	}
}

// asUser runs f with another effective user id, on a thread that is thrown away afterwards: system calls by number
// change one thread, not the process.
func asUser(t *testing.T, uid int, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		const keep = ^uintptr(0)
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
			t.Errorf("setresuid: %v", errno)
			return
		}
		f()
	}()
	<-done
}

func TestUnixLimitOfConnections(t *testing.T) {
	addr := transport.Address{Scheme: transport.Unix, Path: filepath.Join(t.TempDir(), "s")}
	d, a := meet(t, addr, nil, &transport.ListenOptions{MaxConns: 2})
	for range 2 {
		conn, err := d.DialConn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	accepted, _, err := a.AcceptConn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	over, err := d.DialConn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	over.SetReadDeadline(time.Now().Add(5 * time.Second))
	if err := transport.ReadAnswer(t.Context(), over); !errors.Is(err, transport.ErrBusy) || !strings.Contains(err.Error(), "2 are open, which is the limit") {
		t.Errorf("the third connection is told %v, want %v with the limit", err, transport.ErrBusy)
	}
	accepted.Close()
	accepted.Close() // must not free a second place
	next, err := d.DialConn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	for range 2 {
		if _, _, err := a.AcceptConn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
