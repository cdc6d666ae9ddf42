package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// The test's own program is started again as init.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		Init()
	}
	os.Exit(m.Run())
}

// testRuntime is a runtime on a root of its own. What a test leaves in it is an error, and is removed.
func testRuntime(t *testing.T) *Runtime {
	t.Helper()
	testutil.Root(t)
	r, err := Open(&Options{Root: filepath.Join(t.TempDir(), "state")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		list, err := r.List()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		for _, c := range list {
			if err := c.Delete(context.Background(), true); err != nil {
				t.Errorf("delete %s: %v", c.ID(), err)
			}
		}
		if entries, _ := os.ReadDir(r.Root()); len(entries) > 0 {
			t.Errorf("left in the root: %v", entries)
		}
	})
	return r
}

// testBundle is a bundle with busybox, whose program is a shell script.
func testBundle(t *testing.T, script string) (string, *specs.Spec) {
	t.Helper()
	busybox := testutil.Command(t, "busybox")
	bundle := t.TempDir()
	bin := filepath.Join(bundle, "rootfs", "bin")
	for _, dir := range []string{"bin", "proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(bundle, "rootfs", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(busybox, filepath.Join(bin, "busybox")); err != nil {
		data, err := os.ReadFile(busybox)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bin, "busybox"), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"sh", "cat", "sleep", "ls", "touch", "id", "true", "dd"} {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	spec := ExampleSpec()
	spec.Root.Readonly = false
	spec.Process.Terminal = false
	spec.Process.Args = []string{"sh", "-c", script}
	return bundle, spec
}

func testPlan(t *testing.T, script string, changes ...func(*specs.Spec)) *Plan {
	t.Helper()
	bundle, spec := testBundle(t, script)
	for _, change := range changes {
		change(spec)
	}
	data, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, ConfigFile), data, 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := Parse(bundle, spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// testID does not collide with a container of anybody else's: the cgroup has its name.
func testID(t *testing.T) string {
	return fmt.Sprintf("rt-%d-%s", os.Getpid(), strings.NewReplacer("/", "-", " ", "-").Replace(strings.ToLower(t.Name())))
}

const forever = "while :; do sleep 1; done"

// testContainer is created, and started unless told otherwise. Init is reaped in the background.
func testContainer(t *testing.T, r *Runtime, p *Plan, start bool) *Container {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	c, err := r.Create(context.Background(), testID(t), p, &CreateOptions{Stdin: null, Stdout: null, Stderr: null})
	if err != nil {
		t.Fatal(err)
	}
	if !start {
		return c
	}
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return c
}

func wantStatus(t *testing.T, c *Container, want Status) {
	t.Helper()
	var got Status
	var err error
	for range 1000 {
		if got, err = c.Status(); err != nil {
			t.Fatal(err)
		}
		if got == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("status is %s, want %s", got, want)
}

// run runs a script in the container and returns what it prints.
func run(t *testing.T, c *Container, script string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	process := c.Spec().Process
	process.Args = []string{"sh", "-c", script}
	e, err := c.Exec(context.Background(), &ExecOptions{Process: process, Stdout: w, Stderr: w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out := new(strings.Builder)
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		out.Write(buf[:n])
		if err != nil {
			break
		}
	}
	if status, err := e.Wait(); status != 0 || err != nil {
		t.Fatalf("%s: status %d, error %v: %s", script, status, err, out)
	}
	return out.String()
}

func mounts(t *testing.T, prefix string) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], prefix) {
			list = append(list, fields[4])
		}
	}
	return list
}

// sleeper is a process of ours that stands for one that CRIU restored.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	return cmd
}

func inCgroup(t *testing.T, c *Container, pid int) bool {
	t.Helper()
	pids, err := c.Processes()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Contains(pids, pid)
}
