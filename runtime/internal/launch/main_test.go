package launch_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/runtime/internal/bootstrap"
	"github.com/livemigrate/migrate/runtime/internal/launch"
)

// TestMain lets the test binary be the runtime's own program: started as `init` it becomes a container's process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		launch.InitMain()
	}
	os.Exit(m.Run())
}

// box is a container in the making: a busybox root and a spec that tests change before they start it.
type box struct {
	t      testing.TB
	spec   *specs.Spec
	dir    string // bundle
	state  string
	launch launch.Init
}

func newBox(t testing.TB, args ...string) *box {
	t.Helper()
	testutil.Root(t)
	busybox := testutil.Command(t, "busybox")
	b := &box{t: t, dir: t.TempDir(), state: t.TempDir()}
	rootfs := filepath.Join(b.dir, "rootfs")
	for _, dir := range []string{"bin", "etc", "tmp", "proc", "dev", "sys"} {
		must(t, os.MkdirAll(filepath.Join(rootfs, dir), 0o755))
	}
	program, err := os.ReadFile(busybox)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(rootfs, "bin/busybox"), program, 0o755))
	for _, name := range []string{
		"sh", "cat", "id", "ls", "sleep", "echo", "readlink", "stat", "grep", "mount", "hostname", "env", "pwd", "tty",
		"stty", "touch", "true", "ps", "test", "mkdir", "ulimit", "ip", "printf", "head", "wc", "awk", "sed", "find", "umask",
	} {
		must(t, os.Symlink("busybox", filepath.Join(rootfs, "bin", name)))
	}
	must(t, os.WriteFile(filepath.Join(rootfs, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n"), 0o644))
	b.spec = &specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{Path: "rootfs"},
		Hostname: "boxed",
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin"},
			Capabilities: allCapabilities("CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE", "CAP_NET_ADMIN"),
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace},
			{Type: specs.NetworkNamespace},
			{Type: specs.IPCNamespace},
			{Type: specs.UTSNamespace},
			{Type: specs.MountNamespace},
			{Type: specs.CgroupNamespace},
		}},
	}
	b.launch = launch.Init{Spec: b.spec, Bundle: b.dir, Rootfs: rootfs, StateDir: b.state, ID: filepath.Base(b.state)}
	return b
}

func allCapabilities(names ...string) *specs.LinuxCapabilities {
	return &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
}

// create starts init and leaves it on the exec fifo; its output goes to out.
func (b *box) create() (*launch.Process, *output, error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out := newOutput(b.t)
	b.launch.Stdin, b.launch.Stdout, b.launch.Stderr = out.null, out.w, out.w
	b.launch.Log = testLog(b.t)
	p, err := launch.StartInit(ctx, &b.launch)
	if err == nil {
		b.t.Cleanup(func() { _ = p.Signal(unix.SIGKILL) })
	}
	return p, out, err
}

// run runs the container to its end and returns its exit status and output.
func (b *box) run() (int, string) {
	b.t.Helper()
	p, out, err := b.create()
	must(b.t, err)
	must(b.t, b.open(p))
	status, err := p.Wait()
	must(b.t, err)
	return status, out.text()
}

func (b *box) open(p *launch.Process) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return launch.OpenFifo(ctx, b.state, p.Pid, p.StartTime)
}

// running starts the container and leaves it running.
func (b *box) running() *launch.Process {
	b.t.Helper()
	p, _, err := b.create()
	must(b.t, err)
	must(b.t, b.open(p))
	b.t.Cleanup(func() {
		_ = p.Signal(unix.SIGKILL)
		_, _ = p.Wait()
	})
	// Start returns when init is told to go on, a moment before it is its program.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.Pid))
		must(b.t, err)
		if strings.TrimSpace(string(name)) != bootstrap.InitName {
			return p
		}
		if time.Now().After(end) {
			b.t.Fatal("init does not become its program")
		}
	}
}

// exec runs a process in the running container to its end.
func (b *box) exec(initPid int, change func(*launch.Exec), args ...string) (int, string, error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out := newOutput(b.t)
	start, _ := process.StartTime(initPid) // of a dead one the test will hear
	e := &launch.Exec{
		Spec: b.spec, ID: b.launch.ID, Bundle: b.dir, InitPid: initPid, InitStart: start, Stdin: out.null, Stdout: out.w, Stderr: out.w,
		Process: &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, Capabilities: b.spec.Process.Capabilities},
		Log:     testLog(b.t),
	}
	if change != nil {
		change(e)
	}
	p, err := launch.StartExec(ctx, e)
	if err != nil {
		return -1, "", err
	}
	status, err := p.Wait()
	return status, out.text(), err
}

// output collects what a process writes.
type output struct {
	null, r, w *os.File
	buf        bytes.Buffer
	done       chan struct{}
}

func newOutput(t testing.TB) *output {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	must(t, err)
	r, w, err := os.Pipe()
	must(t, err)
	o := &output{null: null, r: r, w: w, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		_, _ = io.Copy(&o.buf, r)
	}()
	t.Cleanup(func() {
		for _, f := range []*os.File{null, r, w} {
			_ = f.Close()
		}
	})
	return o
}

func (o *output) text() string {
	_ = o.w.Close()
	<-o.done
	return o.buf.String()
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
