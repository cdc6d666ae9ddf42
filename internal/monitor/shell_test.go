package monitor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"

	"github.com/livemigrate/migrate/internal/monitor"
	"github.com/livemigrate/migrate/internal/sys/descriptor"
)

// The test binary is also the program of the monitors, which are processes of their own: its arguments then are a verb,
// the script that the container runs, and what monitor adds to them.
func TestMain(m *testing.M) {
	if len(os.Args) < 5 || os.Args[len(os.Args)-2] != "--config-fd" {
		os.Exit(m.Run())
	}
	if err := runMonitor(os.Args[1], os.Args[2], os.Args[len(os.Args)-1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runMonitor(verb, script, fd string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	number, err := strconv.Atoi(fd)
	if err != nil {
		return err
	}
	c, err := monitor.ReadConfig(number)
	if err != nil {
		return err
	}
	switch verb {
	case "monitor":
		return monitor.Run(ctx, c, &shell{script: script, config: c})
	case "keeper":
		return becomeMonitor(ctx, script, c)
	default:
		return fmt.Errorf("unknown verb %q", verb)
	}
}

// becomeMonitor does what a keeper does with a container that came to it: it is the parent of its init, and holds its
// pipes. Its own Config came the same way, for simplicity.
func becomeMonitor(ctx context.Context, script string, c *monitor.Config) error {
	stdio, err := monitor.NewStdio(c.Terminal, c.Interactive)
	if err != nil {
		return err
	}
	container := &shell{script: script, config: c}
	if c.InitPid, err = container.Create(ctx, stdio); err != nil {
		return err
	}
	if _, err := stdio.Output(ctx); err != nil {
		return err
	}
	if err := container.Start(ctx); err != nil {
		return err
	}
	answer := os.NewFile(uintptr(c.Inherited.Answer), "answer")
	if err := json.NewEncoder(answer).Encode(map[string]int{"pid": c.InitPid}); err != nil {
		return err
	}
	answer.Close()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	return monitor.Exec(exe, []string{"monitor", script}, c, stdio)
}

// shell is a container that consists of a shell: created, it has stopped itself before its script.
type shell struct {
	script string
	config *monitor.Config
	pid    int
}

func (s *shell) Create(ctx context.Context, stdio *monitor.Stdio) (int, error) {
	if s.script == "never" {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	if err := os.Mkdir(s.config.StateDir, 0o700); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "sh", "-c", "kill -STOP $$; "+s.script)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio.Stdin, stdio.Stdout, stdio.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if stdio.ConsoleSocket != "" {
		master, path, err := console.NewPty()
		if err != nil {
			return 0, err
		}
		terminal, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
		if err != nil {
			return 0, err
		}
		defer terminal.Close()
		cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
		cmd.SysProcAttr.Setctty = true
		conn, err := net.Dial("unix", stdio.ConsoleSocket)
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		if err := descriptor.Send(conn.(*net.UnixConn), os.NewFile(master.Fd(), "ptmx"), path); err != nil {
			return 0, err
		}
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	s.pid = cmd.Process.Pid
	return s.pid, nil
}

func (s *shell) Start(context.Context) error {
	if s.script == "fail to start" {
		return errors.New("no such program")
	}
	for { // it may not have stopped yet
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
		if err != nil {
			return err
		}
		if strings.Contains(string(stat), ") T ") {
			return syscall.Kill(s.pid, syscall.SIGCONT)
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *shell) Delete(context.Context) error {
	return errors.Join(syscall.Kill(s.pid, syscall.SIGKILL), os.RemoveAll(s.config.StateDir))
}

// ways are the two ways in which a monitor comes to be.
var ways = []string{"monitor", "keeper"}

// detached is a container with its monitor.
type detached struct {
	*monitor.Config
	init int
}

func spawn(t *testing.T, way, script string, c *monitor.Config) *detached {
	t.Helper()
	// A long directory: sockets have 107 bytes for their path.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c.ID, c.StateDir = "test", filepath.Join(dir, "state")
	if c.LogFile == "" {
		c.LogFile = filepath.Join(dir, "log")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := monitor.Spawn(t.Context(), exe, []string{way, script}, c)
	if err != nil {
		t.Fatal(err)
	}
	d := &detached{Config: c, init: pid}
	eventually(t, "there is a monitor", func() bool { // a keeper answers before it becomes one
		_, socketErr := os.Lstat(filepath.Join(c.StateDir, "monitor.sock"))
		_, exitErr := monitor.ReadExit(c.StateDir)
		return socketErr == nil || exitErr == nil
	})
	t.Cleanup(func() {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		d.waitEnd(t)
	})
	return d
}

func (d *detached) log(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(d.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// waitLog returns the log once it has the text.
func (d *detached) waitLog(t *testing.T, text string) string {
	t.Helper()
	eventually(t, "the log has "+text, func() bool { return strings.Contains(d.log(t), text) })
	return d.log(t)
}

// waitEnd returns when the monitor has ended: its socket is gone.
func (d *detached) waitEnd(t *testing.T) {
	t.Helper()
	eventually(t, "the monitor ends", func() bool {
		_, err := os.Lstat(filepath.Join(d.StateDir, "monitor.sock"))
		return errors.Is(err, fs.ErrNotExist)
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after 10 s: %s", what)
		}
	}
}

// state is the letter of init's state in /proc.
func (d *detached) state(t *testing.T) string {
	t.Helper()
	return d.stat(t)[1]
}

// stat is what /proc says of init behind its name: 1 is the state, 2 the parent.
func (d *detached) stat(t *testing.T) []string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.init))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(stat[strings.LastIndex(string(stat), ")"):]))
}
