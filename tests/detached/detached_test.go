package detached

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/monitor"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/runtime"
	"github.com/livemigrate/migrate/tests/lab"
)

func TestOutputOfACheckpointedContainerGoesOnByteForByte(t *testing.T) {
	const lines = 1500
	script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); usleep 500; done; exit 7", lines)
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal=%v", terminal), func(t *testing.T) {
			b := newBundle(t, terminal, script)
			b.mustRun(t, "first.log")
			b.wait(t, "first.log", "line 300")

			offset := b.checkpoint(t)
			if size := int64(len(b.read(t, "first.log"))); size != offset {
				t.Errorf("the log has %d bytes at offset %d", size, offset)
			}
			b.restore(t, "second.log", offset)
			b.wait(t, "second.log", fmt.Sprintf("line %d", lines-1))

			var want strings.Builder
			for i := range lines {
				fmt.Fprintf(&want, "line %d\n", i)
			}
			got := strings.ReplaceAll(b.read(t, "first.log")+b.read(t, "second.log"), "\r\n", "\n")
			if got != want.String() {
				t.Errorf("the logs have %d bytes, want %d", len(got), want.Len())
			}
			if exit := b.exit(t); exit.Status != 7 {
				t.Errorf("the exit status is %+v, want 7", exit)
			}
		})
	}
}

func TestRunReturnsWhileTheContainerRuns(t *testing.T) {
	b := newBundle(t, false, "echo begun; sleep 60")
	start := time.Now()
	b.mustRun(t, "log") // it has the command's output closed, too: a pipe to it would block
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("run took %v", took)
	}
	b.wait(t, "log", "begun")
	if _, err := monitor.Offset(t.Context(), b.stateDir()); err != nil {
		t.Error(err)
	}
}

// A lock or a pipe that a script has open must not be held for as long as the container runs.
func TestMonitorKeepsNothingOfItsCaller(t *testing.T) {
	b := newBundle(t, false, "sleep 60")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := b.command(t, "log")
	cmd.ExtraFiles = []*os.File{w}
	text, err := cmd.CombinedOutput()
	w.Close()
	if err != nil {
		t.Fatalf("run: %v: %s", err, text)
	}
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a pipe of the caller's: %v", err)
	}

	state := b.stateDir()
	want := []string{
		os.DevNull, os.DevNull, os.DevNull, "pipe", b.path("log"), "socket", state, filepath.Join(state, "exit.json"),
		"anon_inode:[eventpoll]", "anon_inode:[eventfd]",
	}
	// Go looks for a limit of processors in the cgroup, and the library of cgroups keeps their mount point open.
	got := slices.DeleteFunc(lab.Descriptors(b.load(t).State().MonitorPid), func(name string) bool { return strings.HasPrefix(name, "/sys/fs/cgroup") })
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the monitor has open\n%q, want\n%q", got, want)
	}
}

func TestFailedRunSaysWhyAndLeavesNothing(t *testing.T) {
	tests := map[string]struct{ script, log, want string }{
		"program is missing":       {"", "log", "no such file or directory"},
		"log in a missing place":   {"true", "missing/log", "open log"},
		"log is a directory":       {"true", ".", "is a directory"},
		"network without a bridge": {"true", "log", "ip link add br7 type bridge"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBundle(t, false, test.script)
			var flags []string
			if strings.HasPrefix(name, "network") {
				flags = []string{"--network", "bridge=br7,address=10.9.0.5/24"}
			}
			text, err := b.run(t, test.log, flags...)
			if err == nil || !strings.Contains(text, test.want) {
				t.Errorf("run said %q, %v, and not %q", text, err, test.want)
			}
			if _, err := os.Stat(b.stateDir()); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the state directory is still there: %v", err)
			}
		})
	}
}

// bundle is a container of busybox under a root of its own.
type bundle struct {
	dir string
	id  string
}

// newBundle makes a bundle whose program is the script; a program that is missing without one.
func newBundle(t *testing.T, terminal bool, script string) *bundle {
	t.Helper()
	testutil.Root(t)
	busybox := testutil.Command(t, "busybox")
	b := &bundle{dir: t.TempDir(), id: fmt.Sprintf("detached-%d", os.Getpid())}
	for _, dir := range []string{"bin", "proc", "dev", "tmp"} {
		if err := os.MkdirAll(filepath.Join(b.dir, "rootfs", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	command(t, "cp", busybox, filepath.Join(b.dir, "rootfs/bin/busybox"))
	command(t, "chroot", filepath.Join(b.dir, "rootfs"), "/bin/busybox", "--install", "-s", "/bin")
	args := []string{"/bin/sh", "-c", script}
	if script == "" {
		args = []string{"/bin/missing"}
	}
	text, err := json.Marshal(&specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Terminal: terminal, Cwd: "/", Args: args, Env: []string{"PATH=/bin"}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=64k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "config.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := os.Stat(b.stateDir()); err == nil {
			b.delete(t)
		}
	})
	return b
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if text, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, text)
	}
}

func (b *bundle) root() string            { return filepath.Join(b.dir, "root") }
func (b *bundle) stateDir() string        { return filepath.Join(b.root(), b.id) }
func (b *bundle) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bundle) command(t *testing.T, log string, flags ...string) *exec.Cmd {
	t.Helper()
	args := append([]string{"--root", b.root(), "run", "--detach", "--bundle", b.dir, "--log-file", b.path(log)}, flags...)
	return exec.CommandContext(t.Context(), os.Getenv(program), append(args, b.id)...)
}

func (b *bundle) run(t *testing.T, log string, flags ...string) (string, error) {
	t.Helper()
	text, err := b.command(t, log, flags...).CombinedOutput()
	return string(text), err
}

func (b *bundle) mustRun(t *testing.T, log string) {
	t.Helper()
	if text, err := b.run(t, log); err != nil {
		t.Fatalf("run: %v: %s", err, text)
	}
}

func (b *bundle) load(t *testing.T) *runtime.Container {
	t.Helper()
	rt, err := runtime.Open(&runtime.Options{Root: b.root()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := rt.Load(b.id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (b *bundle) delete(t *testing.T) {
	t.Helper()
	if err := b.load(t).Delete(context.WithoutCancel(t.Context()), true); err != nil {
		t.Error(err)
	}
}

// checkpoint takes the container down and returns the offset of its output.
func (b *bundle) checkpoint(t *testing.T) int64 {
	t.Helper()
	path, err := criu.Locate("")
	testutil.Need(t, err == nil, "criu")
	c := b.load(t)
	if err := c.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	offset, err := monitor.Drain(t.Context(), c.StateDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := checkpoint.Run(t.Context(), c, &checkpoint.Options{ImagesDir: b.path("images"), CRIU: path}); err != nil {
		t.Fatal(err)
	}
	b.delete(t)
	return offset
}

func (b *bundle) restore(t *testing.T, log string, offset int64) {
	t.Helper()
	text, err := json.Marshal(&order{
		ID: b.id, Root: b.root(), Bundle: b.dir, Images: b.path("images"), LogFile: b.path(log),
		Program: os.Getenv(program), Offset: offset,
	})
	if err != nil {
		t.Fatal(err)
	}
	keeper := exec.CommandContext(t.Context(), "/proc/self/exe", "keeper", string(text))
	keeper.Stderr = os.Stderr
	if err := keeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keeper.Wait() }) // with the container, or killed with the context of a test that failed
}

func (b *bundle) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(b.path(name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

func (b *bundle) wait(t *testing.T, log, text string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(b.read(t, log), text+"\r\n") && !strings.Contains(b.read(t, log), text+"\n"); {
		if time.Now().After(deadline) {
			t.Fatalf("%s has no %q: %q", log, text, b.read(t, log))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (b *bundle) exit(t *testing.T) *monitor.Exit {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		exit, err := monitor.ReadExit(b.stateDir())
		if err == nil {
			return exit
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
