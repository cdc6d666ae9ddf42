package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/internal/monitor"
	"github.com/livemigrate/migrate/internal/testutil"
)

func TestMonitorKeepsLogAndStatus(t *testing.T) {
	for name, script := range map[string]string{"pipe": "echo out; echo err >&2; cat; read x < /tmp/go; exit 9", "terminal": "tty; read x < /tmp/go; exit 9"} {
		t.Run(name, func(t *testing.T) {
			h := newContainerHost(t, script)
			want := "out\nerr\n"
			if name == "terminal" {
				h.configure(script, terminal)
				want = "/dev/pts/0"
			}
			fifo(t, filepath.Join(h.bundle, "rootfs/tmp/go"))
			log, pidFile, id := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "pid"), h.id("monitor-"+name)
			h.ok("run", "--detach", "--log-file", log, "--pid-file", pidFile, id)
			eventually(t, "the output is in the log", fileHas(log, want))
			state := h.state(id)
			if pid, _ := os.ReadFile(pidFile); state.Status != "running" || string(pid) == "" {
				t.Errorf("state is %+v, pid file %q", state, pid)
			}
			if err := os.WriteFile(filepath.Join(h.bundle, "rootfs/tmp/go"), []byte("\n"), 0); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the container ends", func() bool { return h.state(id).Status == "stopped" })
			eventually(t, "its status is kept", func() bool {
				exit, err := monitor.ReadExit(filepath.Join(h.root, id))
				return err == nil && exit.Status == 9
			})
			h.ok("delete", id)
		})
	}
}

func TestMonitorReportsWhyThereIsNoContainer(t *testing.T) {
	h := newContainerHost(t, "true")
	id, log := h.id("nomonitor"), filepath.Join(t.TempDir(), "log")
	h.ok("create", id)
	got := h.run("run", "-d", "--log-file", log, id)
	if got.code != 1 || !strings.Contains(message(t, got.stderr), "container with given ID already exists") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	for _, flags := range [][]string{{"--console-socket", "/x"}, {"--pidfd-socket", "/x"}} {
		args := append(append([]string{"run", "-d", "--log-file", log}, flags...), h.id("other"))
		if got := h.run(args...); got.code != 1 || !strings.Contains(message(t, got.stderr), "--log-file") {
			t.Errorf("%v: exit code %d: %s", args, got.code, got.stderr)
		}
	}
}

// A socket of the service manager's and a file of the caller's reach the program, and nobody else keeps them.
func TestMonitorPassesDescriptorsOn(t *testing.T) {
	h := newContainerHost(t, `echo "$LISTEN_FDS $LISTEN_PID $(readlink /proc/self/fd/3 | cut -c1-7)"; cat <&4; exec 3<&- 4<&-; sleep 100`)
	id, log := h.id("listens"), filepath.Join(t.TempDir(), "log")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "activated"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	socket, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("by descriptor 4"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	// LISTEN_PID has to be migrate's own pid, which a shell has before it becomes migrate.
	cmd := h.command("run", "-d", "--log-file", log, "--preserve-fds", "1", id)
	cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = testutil.Command(t, "sh")
	cmd.ExtraFiles = []*os.File{socket, r}
	if got := h.finish(cmd); got.code != 0 {
		t.Fatalf("exit code %d: %s", got.code, got.stderr)
	}
	eventually(t, "it has read both", fileHas(log, "1 1 socket:\nby descriptor 4"))
	address := listener.Addr().String()
	listener.SetUnlinkOnClose(false)
	if err := errors.Join(listener.Close(), socket.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody has the socket any more", func() bool {
		_, err := net.Dial("unix", address)
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	h.ok("delete", "--force", id)
}

func fifo(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}
