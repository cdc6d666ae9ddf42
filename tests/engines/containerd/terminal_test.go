package containerd

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
)

// session is ctr on a terminal.
type session struct {
	master console.Console
	wait   func() int

	mu   sync.Mutex
	text bytes.Buffer
}

// terminal starts ctr with a terminal of 33 rows and 77 columns.
func (e *engine) terminal(args ...string) *session {
	e.t.Helper()
	master, path, err := console.NewPty()
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = master.Close() })
	if err := master.Resize(console.WinSize{Height: 33, Width: 77}); err != nil {
		e.t.Fatal(err)
	}
	slave, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		e.t.Fatal(err)
	}
	defer slave.Close()
	cmd := e.command(e.t.Context(), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	s := &session{master: master}
	s.wait = func() int {
		timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		_ = cmd.Wait()
		return cmd.ProcessState.ExitCode()
	}
	go s.read()
	return s
}

func (s *session) read() {
	buf := make([]byte, 4096)
	for {
		n, err := s.master.Read(buf)
		s.mu.Lock()
		s.text.Write(buf[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *session) shows(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), text)
}

// sized is a command that ends when the terminal has the size, which ctr passes on only once the program runs.
const sized = "until stty size | grep '^33 77$'; do sleep 0.1; done"

// expect waits for text that what is typed does not contain itself: the terminal echoes.
func (e *engine) expect(s *session, text string) {
	e.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !s.shows(text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.mu.Lock()
			defer s.mu.Unlock()
			e.t.Fatalf("the terminal does not show %q, but %q", text, s.text.String())
		}
	}
}

func (e *engine) typed(s *session, line string) {
	e.t.Helper()
	if _, err := s.master.Write([]byte(line + "\n")); err != nil {
		e.t.Fatal(err)
	}
}

func TestRunHasATerminal(t *testing.T) {
	e := newEngine(t, "terminal")
	s := e.terminal(e.runArgs("tty; exec sh", "--rm", "--tty")...)
	e.expect(s, "/dev/pts/0")
	e.expect(s, "/ # ")
	e.typed(s, sized+"; echo si$((1+1))e")
	e.expect(s, "si2e")
	e.typed(s, "exit 4")
	if code := s.wait(); code != 4 {
		t.Errorf("exit code %d", code)
	}
}

func TestExecHasATerminal(t *testing.T) {
	e := newEngine(t, "exec-terminal")
	e.detach("sleep 1000")
	s := e.terminal("tasks", "exec", "--tty", "--exec-id", "tty", e.id, "sh")
	e.expect(s, "/ # ")
	e.typed(s, "tty; "+sized+"; echo si$((1+1))e")
	e.expect(s, "si2e")
	e.expect(s, "/dev/pts/0")
	e.typed(s, "exit 6")
	if code := s.wait(); code != 6 {
		t.Errorf("exit code %d", code)
	}
}
