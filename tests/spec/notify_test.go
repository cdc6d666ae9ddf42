package spec

import (
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serviceManager reads what is sent to its socket, and lets go of the descriptors of barriers.
func serviceManager(t *testing.T) (path string, messages <-chan string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "manager")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	out := make(chan string, 100)
	go func() {
		body, oob := make([]byte, 4096), make([]byte, syscall.CmsgSpace(4))
		for {
			n, oobn, _, _, err := conn.ReadMsgUnix(body, oob)
			if err != nil {
				return
			}
			if controls, err := syscall.ParseSocketControlMessage(oob[:oobn]); err == nil && len(controls) > 0 {
				fds, _ := syscall.ParseUnixRights(&controls[0])
				for _, fd := range fds {
					_ = syscall.Close(fd)
				}
			}
			out <- string(body[:n])
		}
	}()
	return path, out
}

func next(t *testing.T, messages <-chan string) string {
	t.Helper()
	select {
	case text := <-messages:
		return text
	case <-time.After(20 * time.Second):
		t.Fatal("the service manager heard nothing")
		return ""
	}
}

func TestServiceManagerHearsThatTheContainerIsReady(t *testing.T) {
	script := "probe notify STATUS=warming; sleep 1; probe notify READY=1; sleep 60"
	begin := map[string]func(b *box){
		"run --detach": func(b *box) { b.start() },
		"create and start": func(b *box) {
			b.write()
			b.ok("create", b.id)
			b.ok("start", b.id)
		},
	}
	for name, begin := range begin {
		t.Run(name, func(t *testing.T) {
			path, messages := serviceManager(t)
			b := newBox(t, script)
			b.env = []string{"NOTIFY_SOCKET=" + path}
			began := time.Now()
			begin(b)
			if time.Since(began) < time.Second {
				t.Error("it did not wait until the container was ready")
			}
			pid := strings.TrimSpace(b.ok("state", b.id))
			pid = pid[strings.Index(pid, `"pid": `)+len(`"pid": `):]
			pid = pid[:strings.IndexByte(pid, ',')]
			for _, want := range []string{"STATUS=warming\n", "READY=1\nMAINPID=" + pid + "\n", "BARRIER=1"} {
				if got := next(t, messages); got != want {
					t.Errorf("the service manager heard %q, want %q", got, want)
				}
			}
			if got := b.ok("exec", b.id, "sh", "-c", "echo -$NOTIFY_SOCKET-"); got != "--\n" {
				t.Errorf("exec has it too: %q", got)
			}
		})
	}
}

func TestServiceManagerHearsAllOfAForegroundContainer(t *testing.T) {
	path, messages := serviceManager(t)
	b := newBox(t, "probe notify READY=1; probe notify WATCHDOG=1; probe notify STOPPING=1")
	b.env = []string{"NOTIFY_SOCKET=" + path}
	b.write()
	cmd := b.command("run", b.id)
	if got := finish(t, cmd); got.code != 0 {
		t.Fatal(got.stderr)
	}
	for _, want := range []string{"READY=1\nMAINPID=" + strconv.Itoa(cmd.Process.Pid) + "\n", "WATCHDOG=1\n", "STOPPING=1\n"} {
		if got := next(t, messages); got != want {
			t.Errorf("the service manager heard %q, want %q", got, want)
		}
	}
}

func TestContainerThatEndsUnreadyHoldsNothingUp(t *testing.T) {
	path, _ := serviceManager(t)
	b := newBox(t, "exit 3")
	b.env = []string{"NOTIFY_SOCKET=" + path}
	b.start()
	// A service manager that is not there is an error of start, and leaves nothing.
	b = newBox(t, "true")
	b.env = []string{"NOTIFY_SOCKET=" + path + "-missing"}
	if got := b.run(); got.code == 0 || !strings.Contains(got.stderr, "connect to the service manager") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}

// The program of a running container goes on writing to the socket that its first start has made.
func TestSecondStartLeavesTheNotifySocketAlone(t *testing.T) {
	path, messages := serviceManager(t)
	b := newBox(t, "sleep 1; probe notify READY=1; sleep 60")
	b.env = []string{"NOTIFY_SOCKET=" + path}
	b.write()
	b.ok("create", b.id)
	first := b.command("start", b.id)
	must(t, first.Start())
	eventually(t, "running", func() bool { return strings.Contains(b.ok("state", b.id), `"running"`) })
	if got := b.migrate("start", b.id); got.code == 0 || !strings.Contains(got.stderr, "cannot start an already running container") {
		t.Errorf("second start: exit code %d: %s", got.code, got.stderr)
	}
	if got := next(t, messages); !strings.HasPrefix(got, "READY=1\n") {
		t.Errorf("the service manager heard %q", got)
	}
	if err := first.Wait(); err != nil {
		t.Errorf("the first start: %v", err)
	}
}
