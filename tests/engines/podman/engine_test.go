package podman

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/engines/image"
)

// patience is what one command of podman's gets. It takes a quarter of a second where nobody else computes.
const patience = time.Minute

// storeDir is where everything is that the tests make.
func storeDir() string { return os.Getenv(inside) }

// cgroupParent is the cgroup beneath which podman puts its own.
func cgroupParent() string { return filepath.Base(storeDir()) }

// runtimePath is the runtime that podman uses.
func runtimePath() string {
	if path := os.Getenv("PODMAN_RUNTIME"); path != "" {
		return path
	}
	return filepath.Join(storeDir(), "migrate")
}

// command is podman on the store of these tests.
func command(ctx context.Context, args ...string) *exec.Cmd {
	dir := storeDir()
	global := []string{
		"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "runroot"), "--tmpdir", filepath.Join(dir, "tmp"),
		"--storage-driver", "overlay", "--runtime", runtimePath(),
	}
	cmd := exec.CommandContext(ctx, "podman", append(global, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+filepath.Join(dir, "containers.conf"), "TMPDIR="+dir)
	// A container that outlives podman must not keep our pipes open: that would hang whoever calls podman from a script.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// result is what a command said and how it ended.
type result struct {
	stdout, stderr string
	code           int
}

// engine is podman, for one test. Names are the test's own, so that a failed one doesn't disturb the next.
type engine struct {
	*testing.T
	prefix string
}

// Images are loaded when a test first asks for them.
var (
	loadBusybox = sync.OnceValue(func() error { return load(image.WriteBusybox) })
	loadRedis   = sync.OnceValue(func() error { return load(image.WriteRedis) })
)

func load(write func(string) error) error {
	file := filepath.Join(storeDir(), "image.tar")
	if err := write(file); err != nil {
		return err
	}
	out, err := command(context.Background(), "load", "--quiet", "--input", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("podman load: %w: %s", err, out)
	}
	return os.Remove(file)
}

// dropStore removes pods, containers and volumes, as far as tests that failed left any.
func dropStore() error {
	if _, err := os.Stat(filepath.Join(storeDir(), "root")); errors.Is(err, os.ErrNotExist) {
		return nil // nothing has run
	}
	var all error
	for _, args := range [][]string{{"pod", "rm", "--all", "--force", "--time", "0"}, {"rm", "--all", "--force", "--time", "0"}, {"volume", "rm", "--all"}} {
		if out, err := command(context.Background(), args...).CombinedOutput(); err != nil {
			all = errors.Join(all, fmt.Errorf("podman %s: %w: %s", strings.Join(args, " "), err, out))
		}
	}
	return all
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	testutil.Root(t)
	for _, program := range []string{"podman", "conmon", "busybox"} {
		testutil.Command(t, program)
	}
	if err := loadBusybox(); err != nil {
		t.Fatal(err)
	}
	return &engine{T: t, prefix: strings.ToLower(strings.NewReplacer("/", "-", "Test", "").Replace(t.Name()))}
}

// try is a command that may fail.
func (e *engine) try(args ...string) result {
	e.Helper()
	return e.finish(command(e.Context(), args...))
}

// finish runs the command to its end.
func (e *engine) finish(cmd *exec.Cmd) result {
	e.Helper()
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		e.Fatalf("%s: %v: %s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	if !late.Stop() {
		e.Fatalf("%s: no end in %s: %s%s", strings.Join(cmd.Args, " "), patience, stdout.String(), stderr.String())
	}
	return result{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// do is a command that must succeed; what it prints, without the last line end.
func (e *engine) do(args ...string) string {
	e.Helper()
	got := e.try(args...)
	if got.code != 0 {
		e.Fatalf("podman %s: exit code %d: %s%s", strings.Join(args, " "), got.code, got.stdout, got.stderr)
	}
	return strings.TrimSuffix(got.stdout, "\n")
}

// once runs a container of busybox that is removed at its end: options, then a script.
func (e *engine) once(script string, options ...string) result {
	e.Helper()
	args := append([]string{"run", "--rm", "--cgroup-parent", "/" + cgroupParent()}, options...)
	return e.try(append(args, image.Busybox, "sh", "-c", script)...)
}

// says runs such a container, which must succeed, and returns what it prints.
func (e *engine) says(script string, options ...string) string {
	e.Helper()
	got := e.once(script, options...)
	if got.code != 0 {
		e.Fatalf("%s: %q: exit code %d: %s%s", strings.Join(options, " "), script, got.code, got.stdout, got.stderr)
	}
	return strings.TrimSuffix(got.stdout, "\n")
}

// container is one that runs in the background.
type container struct {
	*engine
	name string
}

// start starts a container of busybox, which is removed with the test: options, then a script.
func (e *engine) start(name, script string, options ...string) *container {
	e.Helper()
	return e.startImage(name, options, image.Busybox, "sh", "-c", script)
}

func (e *engine) startImage(name string, options []string, command ...string) *container {
	e.Helper()
	c := e.named(name)
	args := append([]string{"run", "--detach", "--name", c.name, "--cgroup-parent", "/" + cgroupParent()}, options...)
	e.do(append(args, command...)...)
	return c
}

// named is a container that the test is about to make, and that is removed with it.
func (e *engine) named(name string) *container {
	e.Helper()
	c := &container{engine: e, name: e.prefix + "-" + name}
	e.atEnd("rm", "--force", "--time", "0", "--volumes", "--ignore", c.name)
	return c
}

// atEnd is a command that cleans up after the test.
func (e *engine) atEnd(args ...string) {
	e.Helper()
	e.Cleanup(func() {
		// The test's context is over.
		if out, err := command(context.Background(), args...).CombinedOutput(); err != nil {
			e.Errorf("podman %s: %v: %s", strings.Join(args, " "), err, out)
		}
	})
}

// exec is a command inside that must succeed.
func (c *container) exec(args ...string) string {
	c.Helper()
	return c.do(append([]string{"exec", c.name}, args...)...)
}

// is is one field of podman inspect.
func (c *container) is(field string) string {
	c.Helper()
	return c.do("inspect", "--format", "{{"+field+"}}", c.name)
}

// logs is all that the container has said.
func (c *container) logs() string {
	c.Helper()
	return c.do("logs", c.name)
}

// saying waits until the container has said a line.
func (c *container) saying(line string) {
	c.Helper()
	c.eventually(fmt.Sprintf("%s says %q", c.name, line), func() bool {
		return strings.Contains("\n"+c.logs()+"\n", "\n"+line+"\n")
	})
}

// eventually waits for a condition.
func (e *engine) eventually(what string, condition func() bool) {
	e.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			e.Fatalf("it does not happen: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// same fails the test where two texts differ.
func (e *engine) same(what, got, want string) {
	e.Helper()
	if got != want {
		e.Errorf("%s: %q, want %q", what, got, want)
	}
}

// holds fails the test where the text lacks a part.
func (e *engine) holds(what, text, part string) {
	e.Helper()
	if !strings.Contains(text, part) {
		e.Errorf("%s: %q lacks %q", what, text, part)
	}
}
