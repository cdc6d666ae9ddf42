package podman

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"

	"github.com/livemigrate/migrate/internal/sys/pipe"
	"github.com/livemigrate/migrate/tests/engines/image"
)

// screen is a terminal with podman on it and somebody in front.
type screen struct {
	*engine
	cmd    *exec.Cmd
	master console.Console
	path   string // of the terminal
	mu     sync.Mutex
	text   strings.Builder
	over   chan struct{} // closed when nobody has the terminal any more
}

// onScreen starts a command of podman's on a terminal of 33 lines and 77 columns.
func (e *engine) onScreen(args ...string) *screen {
	e.Helper()
	master, path, err := console.NewPty()
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { _ = master.Close() })
	s := &screen{engine: e, cmd: command(e.Context(), args...), master: master, path: path, over: make(chan struct{})}
	s.resize(33, 77)
	tty, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		e.Fatal(err)
	}
	defer tty.Close()
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = tty, tty, tty
	// Only who has it as its controlling terminal is told of a new size.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { // of a test that failed before the end
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	go s.read()
	return s
}

func (s *screen) read() {
	defer close(s.over)
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

func (s *screen) resize(lines, columns uint16) {
	s.Helper()
	if err := s.master.Resize(console.WinSize{Height: lines, Width: columns}); err != nil {
		s.Fatal(err)
	}
}

func (s *screen) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screen) shows(text string) {
	s.Helper()
	s.eventually("the terminal shows "+text, func() bool { return strings.Contains(s.shown(), text) })
}

func (s *screen) types(text string) {
	s.Helper()
	if _, err := s.master.Write([]byte(text)); err != nil {
		s.Fatal(err)
	}
}

// unread is how much of what was typed the command has yet to read: to the kernel a terminal has a length as a pipe has one.
func (s *screen) unread() int {
	s.Helper()
	n, err := pipe.Length(s.path)
	if err != nil {
		s.Fatal(err)
	}
	return n
}

// ends waits for the command's end.
func (s *screen) ends(code int) {
	s.Helper()
	late := time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() })
	defer late.Stop()
	_ = s.cmd.Wait()
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		s.Errorf("exit code %d, want %d; the terminal shows %q", got, code, s.shown())
	}
}

// detaches types podman's keys for it, one at a time: it knows them only where each comes alone.
func (s *screen) detaches() {
	s.Helper()
	s.types("\x10")                    // Ctrl-P
	time.Sleep(200 * time.Millisecond) // a thread of the kernel's takes it to the other end, where it is counted
	s.eventually("podman has read the first key", func() bool { return s.unread() == 0 })
	s.types("\x11") // Ctrl-Q
	s.ends(0)
}

const (
	// answers until it is told how to end.
	answers = `while read -r word code; do [ "$word" != end ] || exit $code; echo "heard $word"; done`
	// dialogue says before what it sees of its terminal, whose size podman passes on only once the program runs.
	dialogue = `tty; until stty size | grep '33 77'; do sleep 0.1; done; ` + answers
)

func TestRunOnATerminal(t *testing.T) {
	e := newEngine(t)
	c := e.named("c")
	s := e.onScreen("run", "--rm", "--interactive", "--tty", "--name", c.name, "--cgroup-parent", "/"+cgroupParent(), image.Busybox, "sh", "-c", dialogue)
	s.shows("/dev/pts/0")
	s.shows("33 77")
	s.types("hello\r")
	s.shows("heard hello")
	s.types("end 5\r")
	s.ends(5)
}

func TestTerminalsSizeFollows(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", "sleep 100")
	s := e.onScreen("exec", "--interactive", "--tty", c.name, "sh", "-c", "while :; do stty size; sleep 0.1; done")
	s.shows("33 77")
	s.resize(20, 50)
	s.shows("20 50")
	s.types("\x03") // Ctrl-C reaches the program as SIGINT
	s.ends(130)
}

func TestExecOnATerminal(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", "sleep 100")
	s := e.onScreen("exec", "--interactive", "--tty", c.name, "sh", "-c", dialogue)
	s.shows("/dev/pts/")
	s.shows("33 77")
	s.types("hello\r")
	s.shows("heard hello")
	s.types("end 6\r")
	s.ends(6)
}

func TestAttachAfterDetachFindsTheSameTerminal(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", answers, "--interactive", "--tty")
	s := e.onScreen("attach", c.name)
	s.types("one\r")
	s.shows("heard one")
	s.detaches()
	e.same("state", c.is(".State.Status"), "running")
	s = e.onScreen("attach", c.name)
	s.types("two\r")
	s.shows("heard two")
	s.types("end 9\r")
	s.ends(0) // podman 4.3's attach doesn't pass the exit code on
	e.same("wait", e.do("wait", c.name), "9")
}
