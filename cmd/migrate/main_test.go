package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/runtime"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// asMigrate makes the test's own program behave as migrate, so that the tests see what a user sees.
const asMigrate = "MIGRATE_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "init" || os.Getenv(asMigrate) != "" {
		main()
	}
	os.Exit(m.Run())
}

// host is a place with its own root and one bundle.
type host struct {
	t            *testing.T
	root, bundle string
	as           *person // whose commands they are; nil: root's
}

func newHost(t *testing.T) *host {
	t.Helper()
	return &host{t: t, root: filepath.Join(t.TempDir(), "root"), bundle: t.TempDir()}
}

// newContainerHost has a bundle with busybox that runs a shell script, and removes the containers at the end.
func newContainerHost(t *testing.T, script string, changes ...func(*specs.Spec)) *host {
	t.Helper()
	testutil.Root(t)
	busybox := testutil.Command(t, "busybox")
	h := newHost(t)
	for _, dir := range []string{"bin", "proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(h.bundle, "rootfs", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(h.bundle, "rootfs", "bin")
	if err := os.WriteFile(filepath.Join(bin, "busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "sleep", "ls", "id", "true", "env", "ip", "stty", "tty", "mkdir", "dd"} {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	h.configure(script, changes...)
	t.Cleanup(func() {
		for id := range strings.FieldsSeq(h.run("list", "-q").stdout) {
			if got := h.run("delete", "--force", id); got.code != 0 {
				t.Errorf("delete %s: %s", id, got.stderr)
			}
		}
		if left, _ := os.ReadDir(h.root); len(left) > 0 {
			t.Errorf("left in the root: %v", left)
		}
	})
	return h
}

// configure writes the bundle's config.json.
func (h *host) configure(script string, changes ...func(*specs.Spec)) {
	h.t.Helper()
	spec := runtime.ExampleSpec()
	spec.Root.Readonly = false
	spec.Process.Terminal = false
	spec.Process.Args = []string{"sh", "-c", script}
	for _, change := range changes {
		change(spec)
	}
	data, err := json.Marshal(spec)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.bundle, "config.json"), data, 0o644); err != nil {
		h.t.Fatal(err)
	}
}

type result struct {
	stdout, stderr string
	code           int
}

// command is migrate on this host, in the bundle's directory.
func (h *host) command(args ...string) *exec.Cmd {
	if h.root != "" {
		args = append([]string{"--root", h.root}, args...)
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = h.bundle
	cmd.Env = append(os.Environ(), asMigrate+"=1", "XDG_RUNTIME_DIR=")
	if h.as != nil {
		h.as.become(cmd)
	}
	return cmd
}

func (h *host) run(args ...string) result {
	h.t.Helper()
	return h.finish(h.command(args...))
}

// finish runs a command that must end by itself.
func (h *host) finish(cmd *exec.Cmd) result {
	h.t.Helper()
	return h.start(cmd)()
}

// start starts a command and returns what waits for its end. Output goes to files: a pipe would be kept open by the
// container.
func (h *host) start(cmd *exec.Cmd) func() result {
	h.t.Helper()
	dir := h.t.TempDir()
	files := map[string]*os.File{}
	for _, name := range []string{"out", "err"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			h.t.Fatal(err)
		}
		defer f.Close()
		files[name] = f
	}
	cmd.Stdout, cmd.Stderr = files["out"], files["err"]
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	return func() result {
		h.t.Helper()
		timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		if !timer.Stop() {
			h.t.Fatalf("%v did not end", cmd.Args[1:])
		}
		got := result{}
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			got.code = exit.ExitCode()
		} else if err != nil {
			h.t.Fatal(err)
		}
		for name, text := range map[string]*string{"out": &got.stdout, "err": &got.stderr} {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				h.t.Fatal(err)
			}
			*text = string(data)
		}
		return got
	}
}

// ok fails the test unless the command succeeds without a word on stderr.
func (h *host) ok(args ...string) string {
	h.t.Helper()
	got := h.run(args...)
	if got.code != 0 || got.stderr != "" {
		h.t.Fatalf("%v: exit code %d: %s", args, got.code, got.stderr)
	}
	return got.stdout
}

// id is unique on this machine: the cgroup is named by it.
func (h *host) id(name string) string { return fmt.Sprintf("cmd-%d-%s", os.Getpid(), name) }

// message is the text of a single log line.
func message(t *testing.T, stderr string) string {
	t.Helper()
	line, rest, _ := strings.Cut(stderr, "\n")
	if rest != "" {
		t.Errorf("stderr has more than one line: %q", stderr)
	}
	_, text, ok := strings.Cut(line, "level=error msg=")
	if !ok {
		t.Errorf("stderr is no log line: %q", stderr)
		return stderr
	}
	if unquoted, err := strconv.Unquote(text); err == nil {
		return unquoted
	}
	return text
}

func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); { // an emulated machine takes its time
		if check() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("it did not happen: %s", what)
}

func fileHas(path, text string) func() bool {
	return func() bool {
		data, err := os.ReadFile(path)
		return err == nil && bytes.Contains(data, []byte(text))
	}
}
