package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/internal/monitor"
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
	for _, flags := range [][]string{{"--console-socket", "/x"}, {"--preserve-fds", "1"}} {
		args := append(append([]string{"run", "-d", "--log-file", log}, flags...), h.id("other"))
		if got := h.run(args...); got.code != 1 || !strings.Contains(message(t, got.stderr), "--log-file") {
			t.Errorf("%v: exit code %d: %s", args, got.code, got.stderr)
		}
	}
}

func fifo(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}
