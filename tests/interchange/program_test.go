package interchange

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/sandbox"
)

// built is the program, made once for all tests.
var built = sync.OnceValues(func() (string, error) { return sandbox.Build(os.Getenv(inside)) })

// program runs verbs on the containers of a host.
type program struct {
	*host
	path string
	dir  string // it is run in; the bundle of verbs that need one
}

func (h *host) program(bundle string) *program {
	h.t.Helper()
	path, err := built()
	if err != nil {
		h.t.Fatal(err)
	}
	return &program{host: h, path: path, dir: bundle}
}

func (p *program) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.path, append([]string{"--root", p.root}, args...)...)
	cmd.Dir = p.dir
	return cmd
}

// do runs a verb that must succeed. What it leaves running must not hold our pipe.
func (p *program) do(args ...string) string {
	p.t.Helper()
	out, code := p.try(args...)
	if code != 0 {
		p.t.Fatalf("migrate %s: exit code %d: %s", strings.Join(args, " "), code, out)
	}
	return out
}

func (p *program) try(args ...string) (string, int) {
	p.t.Helper()
	cmd := p.command(args...)
	file, err := os.CreateTemp(p.host.dir, "output-")
	if err != nil {
		p.t.Fatal(err)
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	err = cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		p.t.Fatal(err)
	}
	text, err := os.ReadFile(file.Name())
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

func TestProgramSavesAndRestoresWithItsLog(t *testing.T) {
	h := newHost(t)
	p := h.program(h.bundle("b", nil, "sh", "-c", counting))
	log := filepath.Join(h.dir, "log")
	said := func(want string) func() bool {
		return func() bool {
			text, _ := os.ReadFile(log)
			return strings.Contains(string(text), want)
		}
	}
	p.do("run", "-d", "--log-file", log, "count")
	eventually(t, "the log", said("tick 3\n"))
	p.do("checkpoint", "count") // into checkpoint, in the current directory
	if out, _ := p.try("state", "count"); !strings.Contains(out, "does not exist") {
		t.Errorf("state after a checkpoint: %s", out)
	}
	p.do("restore", "-d", "--log-file", log, "--pid-file", "pid", "count")
	eventually(t, "the log", said("tick 9\n"))
	text, err := os.ReadFile(log)
	if err != nil || strings.Count(string(text), "tick 1\n") != 1 {
		t.Errorf("it started anew: %v: %s", err, text)
	}
	pid, err := os.ReadFile(filepath.Join(p.dir, "pid"))
	if err != nil || !strings.Contains(p.do("state", "count"), `"pid": `+string(pid)) {
		t.Errorf("pid file %q, %v", pid, err)
	}
	p.do("checkpoint", "--leave-running", "--image-path", h.images("2"), "--work-path", filepath.Join(h.dir, "work"), "count")
	if _, err := os.Stat(filepath.Join(h.dir, "work", "dump.log")); err != nil {
		t.Error(err)
	}
	if out := p.do("list", "-q"); out != "count\n" {
		t.Errorf("list after --leave-running: %q", out)
	}
	p.do("delete", "-f", "count")
}

func TestForegroundRestoreIsTheContainer(t *testing.T) {
	h := newHost(t)
	p := h.program(h.bundle("b", nil, "sh", "-c", `for i in 1 2 3 4 5 6 7 8 9; do echo tick $i; sleep 0.1; done; read x; echo read $x; exit 7`))
	run := p.command("run", "count")
	var out bytes.Buffer
	run.Stdout = &out
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs", func() bool { out, _ := p.try("list", "-q"); return out == "count\n" })
	time.Sleep(300 * time.Millisecond)
	p.do("checkpoint", "count")
	if err := run.Wait(); run.ProcessState.ExitCode() != 137 {
		t.Errorf("run of a container that was checkpointed: %v", err)
	}
	restore := p.command("restore", "count")
	restore.Stdin = strings.NewReader("words\n")
	text, _ := restore.Output()
	if code := restore.ProcessState.ExitCode(); code != 7 || !strings.HasSuffix(string(text), "tick 9\nread words\n") {
		t.Errorf("exit code %d, output %q", code, text)
	}
	h.nothingLeftOutside("count")
}

func TestProgramsErrorsAreOneLine(t *testing.T) {
	h := newHost(t)
	p := h.program(h.bundle("b", nil, "sh", "-c", counting))
	h.program(h.bundle("m", nil, "sh")).do("create", "made")
	p.do("run", "-d", "--log-file", filepath.Join(h.dir, "log"), "locked")
	flock := testutil.Command(t, "flock")
	locked := h.program(h.bundle("l", nil, flock, "/tmp/lock", "sh", "-c", counting))
	h.install(filepath.Join(locked.dir, "rootfs"), flock)
	locked.do("run", "-d", "--log-file", filepath.Join(h.dir, "log"), "lock")
	time.Sleep(100 * time.Millisecond)
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"checkpoint", "nobody"}, "container does not exist"},
		{[]string{"checkpoint", "a/b"}, "invalid container ID format"},
		{[]string{"checkpoint", "made"}, "container cannot be checkpointed in created state"},
		{[]string{"checkpoint", "--image-path", h.images("lock"), "lock"}, "give --file-locks"},
		{[]string{"checkpoint", "--manage-cgroups-mode", "hard", "locked"}, "invalid manage-cgroups-mode"},
		{[]string{"checkpoint", "--empty-ns", "ipc", "locked"}, "not supported by --empty-ns"},
		{[]string{"checkpoint", "--page-server", "1.2.3.4", "locked"}, "ADDRESS:PORT"},
		{[]string{"checkpoint", "--parent-path", "/abs", "locked"}, "--parent-path must be relative"},
		{[]string{"checkpoint", "--parent-path", "none", "locked"}, "invalid --parent-path"},
		{[]string{"restore", "--image-path", filepath.Join(h.dir, "none"), "new"}, "no such file or directory"},
		{[]string{"restore", "--image-path", h.dir, "new"}, "no checkpoint"},
		{[]string{"restore", "--bundle", h.dir, "new"}, "config.json not found"},
		{[]string{"--criu", "/none", "checkpoint", "locked"}, "criu not found"},
	}
	for _, test := range tests {
		out, code := p.try(test.args...)
		if code != 1 || !strings.Contains(out, test.want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: exit code %d: %q, want %q", strings.Join(test.args, " "), code, out, test.want)
		}
	}
	for id, want := range map[string]string{"made": "created", "locked": "running", "lock": "running"} {
		if out := p.do("state", id); !strings.Contains(out, `"status": "`+want+`"`) {
			t.Errorf("%s is no longer %s: %s", id, want, out)
		}
	}
}

// nothingLeftOutside is nothingLeft without the look at this process's children.
func (h *host) nothingLeftOutside(id string) {
	h.t.Helper()
	if left, _ := filepath.Glob(filepath.Join(h.root, id)); len(left) > 0 {
		h.t.Errorf("left in the root: %v", left)
	}
	if left := testutil.Cgroups(h.unique("*")); len(left) > 0 {
		h.t.Errorf("cgroups are left: %v", left)
	}
}

func TestProgramRestoresANetworkByItself(t *testing.T) {
	h := newHost(t)
	h.bridge("ixbr5", "10.79.5.1/24")
	p := h.program(h.redisBundle(func(s *specs.Spec) { s.Hostname = "net" }))
	p.do("run", "-d", "--log-file", filepath.Join(h.dir, "log"), "--network", "bridge=ixbr5,address=10.79.5.5/24", "redis")
	client := dialCounter(t, "10.79.5.5:6379")
	for range 2 {
		p.do("checkpoint", "--tcp-established", "redis")
		p.do("restore", "-d", "--tcp-established", "--log-file", filepath.Join(h.dir, "log"), "redis")
		client.incr(t)
	}
	p.do("delete", "-f", "redis")
}
