package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/engines/image"
	"github.com/livemigrate/migrate/tests/sandbox"
)

// daemon is the containerd of all tests: started by the first, ended with the namespaces.
type daemon struct {
	cmd    *exec.Cmd
	socket string
}

var shared = sync.OnceValues(func() (*daemon, error) {
	d := &daemon{socket: filepath.Join(sandbox.Dir(), "containerd.sock")}
	config := fmt.Sprintf(`
version = 2
root = "%[1]s/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "%[2]s"
[ttrpc]
  address = "%[2]s.ttrpc"
`, sandbox.Dir(), d.socket)
	if err := os.WriteFile(d.config(), []byte(config), 0o600); err != nil {
		return nil, err
	}
	if err := d.start(); err != nil {
		return nil, err
	}
	archive := filepath.Join(sandbox.Dir(), "busybox.tar")
	if err := image.WriteBusybox(archive); err != nil {
		return nil, err
	}
	out, err := d.command(context.Background(), "images", "import", archive).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("import the image: %w: %s", err, out)
	}
	return d, nil
})

func (d *daemon) config() string { return filepath.Join(sandbox.Dir(), "containerd.toml") }

func (d *daemon) log() string { return filepath.Join(sandbox.Dir(), "containerd.log") }

// start returns when the daemon answers.
func (d *daemon) start() error {
	log, err := os.OpenFile(d.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command("containerd", "--config", d.config())
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("unix", d.socket)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(d.log())
			return fmt.Errorf("containerd does not answer: %w: %s", err, text)
		}
	}
}

// namespace is containerd's word for a set of containers. The cgroups are beneath a group of this name.
func namespace() string { return filepath.Base(sandbox.Dir()) }

func (d *daemon) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ctr", append([]string{"--address", d.socket, "--namespace", namespace()}, args...)...)
	cmd.WaitDelay = time.Second
	return cmd
}

// engine is the daemon for one test, and the container that the test is about.
type engine struct {
	*daemon
	t  *testing.T
	id string
}

// newEngine takes the container's name, which no other test uses. What there is of it goes with the test.
func newEngine(t *testing.T, id string) *engine {
	t.Helper()
	testutil.Root(t)
	testutil.Command(t, "containerd")
	testutil.Command(t, "ctr")
	testutil.Command(t, "busybox")
	d, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{daemon: d, t: t, id: id}
	t.Cleanup(func() { e.remove(id) })
	return e
}

// with is the same engine with another container.
func (e *engine) with(id string) *engine {
	other := &engine{daemon: e.daemon, t: e.t, id: id}
	e.t.Cleanup(func() { e.remove(id) })
	return other
}

// remove ends and deletes a container, and looks at what is left of it.
func (e *engine) remove(id string) {
	e.t.Helper()
	_, _ = e.try("tasks", "kill", "--signal", "SIGKILL", "--all", id)
	deadline := time.Now().Add(10 * time.Second)
	for e.status(id) == "RUNNING" && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	_, _ = e.try("tasks", "rm", "--force", id)
	_, _ = e.try("containers", "rm", id)
	if out := e.do("containers", "ls", "-q"); strings.Contains("\n"+out, "\n"+id+"\n") {
		e.t.Errorf("containerd still has %s", id)
	}
	for _, pattern := range []string{
		"/run/containerd/runc/*/" + id, "/run/containerd/io.containerd.runtime.v2.task/*/" + id,
	} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			e.t.Errorf("left of %s: %v", id, left)
		}
	}
	if left := testutil.Cgroups(filepath.Join(namespace(), id)); len(left) > 0 {
		e.t.Errorf("cgroups are left of %s: %v", id, left)
	}
}

// try runs ctr, and returns what it and the container print, and the exit code.
func (e *engine) try(args ...string) (string, int) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 30*time.Second)
	if e.t.Context().Err() != nil { // cleaning up
		ctx, cancel = context.WithTimeout(context.Background(), 30*time.Second)
	}
	defer cancel()
	var out bytes.Buffer
	cmd := e.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited || ctx.Err() != nil {
		e.t.Fatalf("ctr %s: %v: %s", strings.Join(args, " "), err, out.String())
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func (e *engine) do(args ...string) string {
	e.t.Helper()
	out, code := e.try(args...)
	if code != 0 {
		e.t.Fatalf("ctr %s: exit code %d: %s", strings.Join(args, " "), code, out)
	}
	return out
}

// runArgs is a command line of ctr run: flags, the image, the container's name, and a script.
func (e *engine) runArgs(script string, flags ...string) []string {
	args := append([]string{"run", "--runc-binary", sandbox.Runtime()}, flags...)
	return append(args, image.Busybox, e.id, "sh", "-c", script)
}

// run runs a script in a container that is removed afterwards.
func (e *engine) run(script string, flags ...string) (string, int) {
	e.t.Helper()
	return e.try(e.runArgs(script, append([]string{"--rm"}, flags...)...)...)
}

// detach leaves the container running.
func (e *engine) detach(script string, flags ...string) {
	e.t.Helper()
	e.do(e.runArgs(script, append([]string{"--detach"}, flags...)...)...)
}

// exec runs a script in the container, and what it prints is there to the last byte: ctr 1.6 doesn't read to the end when the
// process is gone, and loses all that a quick one has said where it hasn't got to opening the pipe yet. One in a hundred is
// lost so on a busy machine, with any runtime. So the script's shell lingers.
func (e *engine) exec(script string, flags ...string) (string, int) {
	e.t.Helper()
	args := append([]string{"tasks", "exec", "--exec-id", fmt.Sprint("e", time.Now().UnixNano())}, flags...)
	return e.try(append(args, e.id, "sh", "-c", "trap 'sleep 0.3' EXIT; "+script)...)
}

// status is a task's, as tasks ls has it; "" without a task.
func (e *engine) status(id string) string {
	e.t.Helper()
	for line := range strings.Lines(e.do("tasks", "ls")) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == id {
			return fields[2]
		}
	}
	return ""
}

// group reads a file of the container's cgroup: in v1's hierarchy of that controller, or in v2's only one.
func (e *engine) group(controller, file string) string {
	e.t.Helper()
	if testutil.Cgroup2Alone() {
		controller = ""
	}
	text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, namespace(), e.id, file))
	if err != nil {
		e.t.Error(err)
	}
	return strings.TrimSpace(string(text))
}

func (e *engine) eventually(what string, check func() bool) {
	e.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !check(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(e.log())
			e.t.Fatalf("not within 15 s: %s; containerd's log ends in: %s", what, text[max(0, len(text)-2000):])
		}
	}
}

// kill ends the daemon as a crash does.
func (d *daemon) kill() error {
	if err := d.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	_ = d.cmd.Wait()
	return nil
}
