package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/testutil"
)

// Flags whose effect is seen from outside the container only.

func TestEventsComeAsOftenAsAsked(t *testing.T) {
	h := newContainerHost(t, forever)
	id := h.id("interval")
	h.ok("run", "-d", id)
	cmd := h.command("events", "--interval", "100ms", id)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	patience := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer patience.Stop()
	lines := bufio.NewReader(out)
	for n := range 2 {
		line, err := lines.ReadBytes('\n')
		var e struct{ Type, ID string }
		if err != nil || json.Unmarshal(line, &e) != nil || e.Type != "stats" || e.ID != id {
			t.Errorf("event %d is %q, %v", n, line, err)
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func TestExecIntoAPausedContainerWaitsForItsResume(t *testing.T) {
	testutil.CgroupV1(t) // of its freezer
	h := newContainerHost(t, forever)
	id := h.id("paused")
	h.ok("run", "-d", id)
	h.ok("pause", id)
	wait := h.start(h.command("exec", "--ignore-paused", id, "sh", "-c", "echo through"))
	ended := make(chan result, 1)
	go func() { ended <- wait() }()
	select {
	case got := <-ended:
		t.Fatalf("it ran while the container was paused: exit code %d, %q, %s", got.code, got.stdout, got.stderr)
	case <-time.After(300 * time.Millisecond):
	}
	h.ok("resume", id)
	if got := <-ended; got.code != 0 || got.stdout != "through\n" || got.stderr != "" {
		t.Errorf("exit code %d, %q, %s", got.code, got.stdout, got.stderr)
	}
}

func TestExecDecidesOverNewPrivileges(t *testing.T) {
	h := newContainerHost(t, forever)
	const show = "busybox grep NoNewPrivs /proc/self/status"
	for _, configured := range []bool{false, true} {
		h.configure(forever, func(s *specs.Spec) { s.Process.NoNewPrivileges = configured })
		id := h.id(fmt.Sprint("privs-", configured))
		h.ok("run", "-d", id)
		for _, c := range []struct {
			flags []string
			want  bool
		}{
			{nil, configured},
			{[]string{"--no-new-privs"}, true},
			{[]string{"--no-new-privs=false"}, false},
		} {
			want := "NoNewPrivs:\t0\n"
			if c.want {
				want = "NoNewPrivs:\t1\n"
			}
			if got := h.ok(slices.Concat([]string{"exec"}, c.flags, []string{id, "sh", "-c", show})...); got != want {
				t.Errorf("%v, configured %v: %q", c.flags, configured, got)
			}
		}
	}
}

func TestPidfdSocketGetsTheProcess(t *testing.T) {
	h := newContainerHost(t, forever)
	path := filepath.Join(t.TempDir(), "socket")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	pidFile := filepath.Join(t.TempDir(), "pid")
	id := h.id("pidfd")
	for _, args := range [][]string{
		{"run", "--detach", id},
		{"exec", "--detach", id, "sleep", "1000"},
	} {
		h.ok(slices.Insert(args, 1, "--pidfd-socket", path, "--pid-file", pidFile)...)
		conn, err := listener.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		process, _, err := descriptor.Receive(conn)
		conn.Close()
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", process.Fd()))
		process.Close()
		if err != nil {
			t.Fatal(err)
		}
		pid, err := os.ReadFile(pidFile)
		if err != nil || !strings.Contains(string(info), fmt.Sprintf("\nPid:\t%s\n", pid)) {
			t.Errorf("%s sends what is not a pidfd of %s (%v): %s", args[0], pid, err, info)
		}
	}
}

// Without a pid namespace an orphan of the container finds its next parent on the host: the command in the foreground, which
// reaps it, unless it is told not to.
func TestOrphansOfAForegroundContainerAreReapedWhereWanted(t *testing.T) {
	h := newContainerHost(t, "sh -c 'sleep 1000 & echo $! > /tmp/new; busybox mv /tmp/new /tmp/orphan'; "+forever, func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	})
	orphan := filepath.Join(h.bundle, "rootfs/tmp/orphan")
	for name, flags := range map[string][]string{"reaped": nil, "not": {"--no-subreaper"}} {
		_ = os.Remove(orphan)
		id := h.id(name)
		cmd := h.command(append(append([]string{"run"}, flags...), id)...)
		wait := h.start(cmd)
		eventually(t, "the orphan is there", func() bool { _, err := os.Stat(orphan); return err == nil })
		pid, err := os.ReadFile(orphan)
		if err != nil {
			t.Fatal(err)
		}
		parent := func() bool {
			return fileHas(fmt.Sprintf("/proc/%s/status", strings.TrimSpace(string(pid))), fmt.Sprintf("\nPPid:\t%d\n", cmd.Process.Pid))()
		}
		if flags == nil {
			eventually(t, "the command is the orphan's parent", parent)
		} else if time.Sleep(100 * time.Millisecond); parent() {
			t.Error("the command is the orphan's parent in spite of --no-subreaper")
		}
		h.ok("kill", id, "KILL")
		wait()
	}
}
