package interchange

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/runtime"
)

// host is one root of containers, with bundles of busybox.
type host struct {
	t    *testing.T
	rt   *runtime.Runtime
	root string
	dir  string
}

func newHost(t *testing.T) *host {
	t.Helper()
	testutil.Root(t)
	path, err := criu.Locate("")
	testutil.Need(t, err == nil, "criu")
	t.Setenv(criu.Environment, path)
	dir, err := os.MkdirTemp("", "interchange-")
	if err != nil {
		t.Fatal(err)
	}
	// The root of a user namespace must get through.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, root: filepath.Join(dir, "state"), dir: dir}
	if h.rt, err = runtime.Open(&runtime.Options{Root: h.root}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		containers, err := h.rt.List()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		for _, c := range containers {
			if err := c.Delete(context.Background(), true); err != nil {
				t.Errorf("delete %s: %v", c.ID(), err)
			}
			reap(c.State().InitProcessPid)
		}
		for { // those that are listed no more: the next test is to find no child
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				break
			}
		}
		if t.Failed() {
			t.Logf("left for a look: %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return h
}

// bundle makes a root of busybox and the spec that runc would write, changed by change.
func (h *host) bundle(name string, change func(*specs.Spec), args ...string) string {
	h.t.Helper()
	busybox := testutil.Command(h.t, "busybox")
	dir := filepath.Join(h.dir, name)
	for _, d := range []string{"bin", "proc", "sys", "dev", "tmp", "etc", "run", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, "rootfs", d), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	h.run("cp", busybox, filepath.Join(dir, "rootfs/bin/busybox"))
	h.run("chroot", filepath.Join(dir, "rootfs"), "/bin/busybox", "--install", "-s", "/bin")
	spec := defaultSpec()
	spec.Process.Args = args
	spec.Linux.CgroupsPath = "/" + h.unique(name) // other runs of these tests share the hierarchies
	if change != nil {
		change(spec)
	}
	h.writeSpec(dir, spec)
	return dir
}

func (h *host) writeSpec(bundle string, spec *specs.Spec) {
	h.t.Helper()
	text, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func defaultSpec() *specs.Spec {
	caps := []string{"CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_SETUID", "CAP_SETGID"}
	return &specs.Spec{
		Version:  specs.Version,
		Hostname: "inside",
		Root:     &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
			},
			MaskedPaths:   []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// unique is a name that no other run of these tests uses.
func (h *host) unique(name string) string {
	return filepath.Base(h.dir) + "-" + name
}

// reap waits for a child that is dead or about to be.
func reap(pid int) {
	for {
		if _, err := syscall.Wait4(pid, nil, 0, nil); !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

// run is a program of this machine that must succeed.
func (h *host) run(name string, args ...string) string {
	h.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// images is a fresh image directory.
func (h *host) images(name string) string {
	return filepath.Join(h.dir, "images-"+name)
}

// container is one that was started through the runtime, with its output.
type container struct {
	*runtime.Container
	output *os.File // read end
}

// start runs a container of the bundle.
func (h *host) start(id, bundle string, network *runtime.Network) *container {
	h.t.Helper()
	c := h.create(id, bundle, network, &runtime.CreateOptions{})
	if err := c.Start(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	return c
}

// create makes a container of the bundle that waits for its start.
func (h *host) create(id, bundle string, network *runtime.Network, o *runtime.CreateOptions) *container {
	h.t.Helper()
	spec, err := runtime.LoadSpec(bundle)
	if err != nil {
		h.t.Fatal(err)
	}
	plan, err := runtime.Parse(bundle, spec, &runtime.PlanOptions{Network: network})
	if err != nil {
		h.t.Fatal(err)
	}
	r, w, stdin := h.pipes()
	o.Stdin, o.Stdout, o.Stderr = stdin, w, w
	c, err := h.rt.Create(h.t.Context(), id, plan, o)
	if err != nil {
		h.t.Fatal(err)
	}
	w.Close()
	stdin.Close()
	return &container{Container: c, output: r}
}

// pipes are the container's output, both ends, and /dev/null.
func (h *host) pipes() (r, w, stdin *os.File) {
	h.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { r.Close() })
	// Descriptors of pipes that Go made are non-blocking, and the container's programs would have to know.
	_ = w.Fd()
	stdin, err = os.Open(os.DevNull)
	if err != nil {
		h.t.Fatal(err)
	}
	return r, w, stdin
}

// expect reads the container's output until it says want, and returns all of it.
func (c *container) expect(t *testing.T, want string) string {
	t.Helper()
	var all strings.Builder
	buf := make([]byte, 4096)
	deadline := time.Now().Add(30 * time.Second)
	for !strings.Contains(all.String(), want) {
		if err := c.output.SetReadDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		n, err := c.output.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the container closed its output")
			}
			t.Fatalf("waiting for %q: %v; output: %q", want, err, all.String())
		}
	}
	return all.String()
}

// goesOn reads the output of a restored program that counts: it must not have started anew, and must count on.
func (c *container) goesOn(t *testing.T) {
	t.Helper()
	text := c.expect(t, "\ntick ")
	text += c.expect(t, "\ntick ")
	last := 0
	for line := range strings.Lines(text) {
		var n int
		if got, err := fmt.Sscanf(line, "tick %d\n", &n); got != 1 || err != nil {
			continue // cut
		}
		if n < 3 || last != 0 && n != last+1 {
			t.Errorf("tick %d after %d in %q", n, last, text)
		}
		last = n
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come true", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// gone tells whether no process has the pid.
func gone(pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return errors.Is(err, os.ErrNotExist)
}
