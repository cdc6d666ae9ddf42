package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/console"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
)

// screen is a terminal with somebody who reads it.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
	over chan struct{}
}

func newScreen(from io.Reader) *screen {
	s := &screen{over: make(chan struct{})}
	go func() {
		defer close(s.over)
		buf := make([]byte, 4096)
		for {
			n, err := from.Read(buf)
			s.mu.Lock()
			s.text.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) shows(text string) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Contains(s.text.String(), text)
	}
}

func TestRunOnATerminal(t *testing.T) {
	h := newContainerHost(t, "stty size; read line; echo got $line; exit 5", terminal)
	master, path, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := master.Resize(console.WinSize{Height: 33, Width: 77}); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.command("run", h.id("tty"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	screen := newScreen(master)
	eventually(t, "the size is passed on", screen.shows("33 77"))
	if _, err := master.Write([]byte("hello\r")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "input arrives", screen.shows("got hello"))
	err = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit code %d, error %v", code, err)
	}
}

func TestConsoleSocketGetsTheMaster(t *testing.T) {
	h := newContainerHost(t, "tty; "+forever, terminal)
	path := filepath.Join(t.TempDir(), "socket")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	receive := func() *os.File {
		conn, err := listener.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		master, _, err := descriptor.Receive(conn)
		if err != nil {
			t.Fatal(err)
		}
		return master
	}
	id := h.id("console")
	h.ok("create", "--console-socket", path, id)
	master := receive()
	defer master.Close()
	screen := newScreen(master)
	h.ok("start", id)
	eventually(t, "output comes by the console socket", screen.shows("/dev/pts/0"))

	h.ok("exec", "--detach", "--tty", "--console-socket", path, id, "sh", "-c", "tty; sleep 1000")
	second := receive()
	defer second.Close()
	eventually(t, "exec has a console of its own", newScreen(second).shows("/dev/pts/1"))
}

func TestExecOnATerminal(t *testing.T) {
	h := newContainerHost(t, forever)
	id := h.id("exectty")
	h.ok("run", "-d", id)
	execOnTerminal(t, h, id)
}

// execOnTerminal wants exec -t to give a program a terminal, and its exit code to its caller.
func execOnTerminal(t *testing.T, h *host, id string) {
	t.Helper()
	master, path, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	tty, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.command("exec", "-t", id, "sh", "-c", "tty; exit 6")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	eventually(t, "it has a terminal", newScreen(master).shows("/dev/pts/0"))
	err = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 6 {
		t.Errorf("exit code %d, error %v", code, err)
	}
}
