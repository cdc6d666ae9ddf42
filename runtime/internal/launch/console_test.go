package launch_test

import (
	"bufio"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/runtime/internal/launch"
)

// receiveFile takes the descriptor that comes over one end of a socket pair.
func receiveFile(t *testing.T, socket *os.File) (*os.File, string) {
	t.Helper()
	body, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(int(socket.Fd()), body, oob, unix.MSG_CMSG_CLOEXEC)
	must(t, err)
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	must(t, err)
	fds, err := unix.ParseUnixRights(&messages[0])
	must(t, err)
	f := os.NewFile(uintptr(fds[0]), "received")
	t.Cleanup(func() { _ = f.Close() })
	return f, string(body[:n])
}

func socketPair(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	ours, theirs = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	return ours, theirs
}

func TestInitGetsATerminalOfItsOwn(t *testing.T) {
	b := newBox(t, "sh", "-c", "tty; stty size; test -c /dev/console && echo console; test -t 0 && echo controls >/dev/tty")
	b.spec.Process.Terminal = true
	b.spec.Process.ConsoleSize = &specs.Box{Width: 91, Height: 37}
	ours, theirs := socketPair(t)
	b.launch.ConsoleSocket = theirs
	p, _, err := b.create()
	must(t, err)
	master, _ := receiveFile(t, ours)
	must(t, b.open(p))
	lines := bufio.NewScanner(master)
	for _, want := range []string{"/dev/pts/0", "37 91", "console", "controls"} {
		if !lines.Scan() || strings.TrimSpace(lines.Text()) != want {
			t.Fatalf("terminal shows %q, want %q", lines.Text(), want)
		}
	}
	if status, err := p.Wait(); err != nil || status != 0 {
		t.Errorf("exit status %d, %v", status, err)
	}
}

func TestExecGetsATerminalAndAPidfd(t *testing.T) {
	b := newBox(t, "sleep", "100")
	p := b.running()
	ours, theirs := socketPair(t)
	pidOurs, pidTheirs := socketPair(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	e, err := launch.StartExec(ctx, &launch.Exec{
		Spec: b.spec, ID: b.launch.ID, InitPid: p.Pid, InitStart: p.StartTime, ConsoleSocket: theirs, PidfdSocket: pidTheirs,
		Process: &specs.Process{Args: []string{"tty"}, Cwd: "/", Env: []string{"PATH=/bin"}, Terminal: true},
	})
	must(t, err)
	master, _ := receiveFile(t, ours)
	_, kind := receiveFile(t, pidOurs)
	if kind != "setns" {
		t.Errorf("pidfd came as %q", kind)
	}
	line, _ := bufio.NewReader(master).ReadString('\n')
	if !strings.HasPrefix(line, "/dev/pts/") {
		t.Errorf("terminal shows %q", line)
	}
	if status, err := e.Wait(); err != nil || status != 0 {
		t.Errorf("exit status %d, %v", status, err)
	}
}
