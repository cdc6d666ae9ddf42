package interchange

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/restore"
)

// runc is Debian's, with containers of its own and the same CRIU.
type runc struct {
	*host
	path string
}

func newRunc(h *host) *runc {
	h.t.Helper()
	r := &runc{host: h, path: testutil.Command(h.t, "runc")}
	h.t.Cleanup(func() {
		for id := range strings.FieldsSeq(r.do("list", "-q")) {
			_ = exec.Command(r.path, "--root", r.state(), "delete", "-f", id).Run()
		}
	})
	return r
}

func (r *runc) state() string { return filepath.Join(r.dir, "runc") }

// do runs a verb. What runs in the background must not hold our pipe.
func (r *runc) do(args ...string) string {
	r.t.Helper()
	out, err := r.command(args...)
	if err != nil {
		r.t.Fatalf("runc %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

func (r *runc) command(args ...string) (string, error) {
	args = append([]string{"--root", r.state(), "--criu", os.Getenv(criu.Environment)}, args...)
	out, err := exec.Command(r.path, args...).CombinedOutput()
	return string(out), err
}

// detached runs a verb that leaves a container, whose output comes back.
func (r *runc) detached(id string, args ...string) *os.File {
	r.t.Helper()
	read, write, stdin := r.pipes()
	defer write.Close()
	defer stdin.Close()
	args = append([]string{"--root", r.state(), "--criu", os.Getenv(criu.Environment)}, append(args, id)...)
	cmd := exec.Command(r.path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, write, write
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(filepath.Join(r.images("1"), "restore.log"))
		r.t.Fatalf("runc %s: %v: %s", strings.Join(args, " "), err, tailOf(text))
	}
	return read
}

func tailOf(text []byte) []byte {
	lines := bytes.Split(text, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-20):], []byte("\n"))
}

// worlds are the specs that must go both ways.
var worlds = []struct {
	name   string
	change func(*specs.Spec)
}{
	{"plain", nil},
	{"with binds and a masked file", func(s *specs.Spec) {
		s.Mounts = append(
			s.Mounts,
			specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: "/etc/hosts", Options: []string{"bind", "ro"}},
			specs.Mount{Destination: "/run/data", Type: "bind", Source: "/usr/share", Options: []string{"rbind", "ro"}},
			specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
		)
	}},
	{"with cgroups mounted", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{
			Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"},
		})
	}},
	{"in a cgroup namespace", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}},
}

// byID leaves the cgroup to be named after the container: it is another one after the restore.
func byID(change func(*specs.Spec)) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.CgroupsPath = ""
		if change != nil {
			change(s)
		}
	}
}

func TestRuncRestoresOurCheckpoint(t *testing.T) {
	for _, world := range worlds {
		t.Run(world.name, func(t *testing.T) {
			h := newHost(t)
			r := newRunc(h)
			bundle := h.bundle("b", byID(world.change), "sh", "-c", counting)
			c := h.start(h.unique("ours"), bundle, nil)
			c.expect(t, "tick 3\n")
			pid := c.InitPid()
			if err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1")}); err != nil {
				t.Fatal(err)
			}
			reap(pid)
			if err := c.Delete(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			out := r.detached(h.unique("theirs"), "restore", "-d", "--image-path", h.images("1"), "--bundle", bundle)
			(&container{output: out}).goesOn(t)
		})
	}
}

func TestOurRestoreOfRuncsCheckpoint(t *testing.T) {
	for _, world := range worlds {
		t.Run(world.name, func(t *testing.T) {
			h := newHost(t)
			r := newRunc(h)
			bundle := h.bundle("b", byID(world.change), "sh", "-c", counting)
			out := r.detached(h.unique("theirs"), "run", "-d", "--bundle", bundle)
			(&container{output: out}).expect(t, "tick 3\n")
			r.do("checkpoint", "--image-path", h.images("1"), h.unique("theirs"))
			c, err := h.restore(h.unique("ours"), bundle, h.images("1"), nil)
			if err != nil {
				t.Fatal(err)
			}
			c.goesOn(t)
			c.inItsCgroup(t)
		})
	}
}

// inItsCgroup: nobody who deletes or limits the old container may hit the restored one.
func (c *container) inItsCgroup(t *testing.T) {
	t.Helper()
	pid := strconv.Itoa(c.InitPid())
	text, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), ":freezer:/"+c.ID()+"\n") && !strings.Contains(string(text), "0::/"+c.ID()+"\n") {
		t.Errorf("it is in the cgroups %s", text)
	}
	own, err := os.Readlink("/proc/self/ns/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	its, err := os.Readlink("/proc/" + pid + "/ns/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if private := c.Plan().Private(specs.CgroupNamespace); private != (its != own) {
		t.Errorf("cgroup namespace of its own: %v, the spec says %v", its != own, private)
	}
}

func TestLoopbackConnectionOfRuncsCheckpointSurvives(t *testing.T) {
	h := newHost(t)
	r := newRunc(h)
	bundle := h.bundle("b", func(s *specs.Spec) {
		s.Process.Env = append(s.Process.Env, "GODEBUG=multipathtcp=0", "BUSY=small")
	}, "busy")
	h.busy(bundle)
	out := r.detached(h.unique("theirs"), "run", "-d", "--bundle", bundle)
	(&container{output: out}).expect(t, "round 2: all well\n")
	// runc leaves the content of the network namespace out, and cannot restore this itself: the loopback is down there.
	r.do("checkpoint", "--tcp-established", "--file-locks", "--image-path", h.images("1"), h.unique("theirs"))
	c, err := h.restore(h.unique("ours"), bundle, h.images("1"), func(o *restore.Options) {
		o.TCPEstablished, o.FileLocks = true, true
	})
	if err != nil {
		t.Fatal(err)
	}
	text := c.expect(t, "all well\n")
	text += c.expect(t, "all well\n")
	if strings.Contains(text, "lost") || strings.Contains(text, "round 1:") {
		t.Errorf("output %q", text)
	}
}

func TestConnectionInANetworkNamespaceByPathGoesBothWays(t *testing.T) {
	h := newHost(t)
	r := newRunc(h)
	h.bridge("ixbr4", "10.79.4.1/24")
	h.namespace("ix4", "ixbr4", "10.79.4.5/24")
	bundle := h.redisBundle(inNamespace("ix4"))
	c := h.start("redis", bundle, nil)
	client := dialCounter(t, "10.79.4.5:6379")
	pid := c.InitPid()
	if err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1"), TCPEstablished: true}); err != nil {
		t.Fatal(err)
	}
	reap(pid)
	if err := c.Delete(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	r.detached(h.unique("theirs"), "restore", "-d", "--tcp-established", "--image-path", h.images("1"), "--bundle", bundle)
	client.incr(t)
	r.do("checkpoint", "--tcp-established", "--image-path", h.images("2"), h.unique("theirs"))
	if _, err := h.restore(h.unique("ours"), bundle, h.images("2"), func(o *restore.Options) { o.TCPEstablished = true }); err != nil {
		t.Fatal(err)
	}
	client.incr(t)
}

func TestTerminalsGoBothWays(t *testing.T) {
	h := newHost(t)
	r := newRunc(h)
	bundle := h.bundle("b", func(s *specs.Spec) { s.Process.Terminal = true }, "sh")
	c, master := h.startTerminal(h.unique("ours"), bundle)
	talk(t, master, "a=be; a=${a}fore; echo got-$a\n", "got-before")
	pid := c.InitPid()
	if err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1")}); err != nil {
		t.Fatal(err)
	}
	reap(pid)
	if err := c.Delete(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	master.Close()
	theirs := h.console(func(socket string) {
		r.do("restore", "-d", "--console-socket", socket, "--image-path", h.images("1"), "--bundle", bundle, h.unique("theirs"))
	})
	talk(t, theirs, "a=${a}-runc; echo got-$a\n", "got-before-runc")
	r.do("checkpoint", "--image-path", h.images("2"), h.unique("theirs"))
	ours := h.console(func(socket string) {
		if _, err := h.restore(h.unique("ours"), bundle, h.images("2"), func(o *restore.Options) { o.ConsoleSocket = socket }); err != nil {
			t.Fatal(err)
		}
	})
	talk(t, ours, "echo got-$a-again\n", "got-before-runc-again")
}
