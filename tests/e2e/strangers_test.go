package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/lab"
)

// stranger is a program that knows nothing of being moved, of a language whose run-time makes code, collects garbage and
// reserves more memory than there is.
type stranger struct {
	name    string
	program string // of the machine
	extra   bool   // not every machine that tests has it
	long    bool   // left to make test-strangers
	source  string // in testdata
	args    []string
	modes   []string
	change  func(w *world, h *lab.Host, bundle string, spec *specs.Spec)
}

func strangers() []stranger {
	python := stranger{program: "python3", source: "stranger.py", args: []string{"2"}}
	node := stranger{program: "node", extra: true, source: "stranger.js", args: []string{"2"}}
	java := stranger{program: "javac", extra: true, source: "Stranger.java"}
	return []stranger{
		python.as("python that no tracer may stop", false, deadlySeccomp, "2", "no core"),
		python.as("python in a user namespace", true, userNamespace, "2"),
		python.as("python with a read-only root", true, readOnly, "4"),
		node.as("node", false, nil, "2"),
		node.as("node in a user namespace", true, userNamespace, "2"),
		java.as("java", false, nil, "java", "-XX:+UseG1GC", "-Xmx256m"),
		java.as("java with ZGC", true, nil, "java", "-XX:+UseZGC", "-Xmx256m"),
		java.as("java with a read-only root", true, readOnly, "java", "-Xmx128m"),
	}
}

func (s stranger) as(name string, long bool, change func(*world, *lab.Host, string, *specs.Spec), args ...string) stranger {
	s.name, s.long, s.change, s.args = name, long, change, args
	s.modes = []string{"pre-copy", "post-copy", "auto"}
	if strings.HasSuffix(name, "user namespace") { // where nothing can be left for later, unless a sysctl allows it
		s.modes = []string{"pre-copy", "stop-copy", "auto"}
	}
	return s
}

// needed skips the test where the stranger is not at home. In the container it is looked for in /usr/bin.
func (s stranger) needed(t *testing.T) {
	t.Helper()
	_, err := os.Stat(filepath.Join("/usr/bin", s.program))
	if s.extra {
		testutil.Extra(t, err == nil, s.program)
	} else {
		testutil.Need(t, err == nil, "/usr/bin/"+s.program)
	}
}

// There and back again. With -moves, of `make test-strangers`, all of them, and in every mode.
func TestStrangersMove(t *testing.T) {
	for _, s := range strangers() {
		if s.long && *moves == 0 {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			s.needed(t)
			w := newWorldFor(t, 3*time.Minute+time.Duration(*moves)*time.Minute)
			w.runStranger(w.A, s)
			c := w.checkWorkload()
			w.travel("stranger", c, w.tls, s.modes, "--volumes", "shared")
		})
	}
}

// What neither the memory engine nor CRIU can take along stays where it is, unharmed, in every mode.
func TestMemoryThatCannotMoveIsNotHarmed(t *testing.T) {
	for _, what := range []string{"io_uring", "userfaultfd"} {
		if what == "userfaultfd" && *moves == 0 {
			continue
		}
		t.Run(what, func(t *testing.T) {
			s := stranger{program: "python3", source: "stranger.py", args: []string{"2", what}}
			s.needed(t)
			w := newWorld(t)
			w.runStranger(w.A, s)
			c := w.checkWorkload()
			for _, mode := range []string{"pre-copy", "post-copy", "stop-copy"} {
				p := w.push(w.A, "--mode", mode, "--volumes", "shared", "stranger", w.tls(w.B))
				if code := p.wait(); code != 1 && code != 4 || !strings.Contains(p.result.Error, what) || strings.Contains(p.result.Error, "\n") {
					t.Errorf("%s: push exits with %d, outcome %q: %s", mode, code, p.result.Outcome, p.result.Error)
				}
				if now := w.where("stranger"); now != w.A {
					t.Fatalf("runs on %s", now.Name)
				}
				c.unharmed()
			}
		})
	}
}

// travel moves the container in the modes in turn, and has the client look at it after each: there and back, or -moves times.
func (w *world) travel(id string, c *client, address func(*lab.Host) string, modes []string, flags ...string) {
	w.t.Helper()
	at := w.A
	for n := range max(*moves, 2) {
		to, mode := w.other(at), modes[n%len(modes)]
		p := w.push(at, append(append([]string{"--mode", mode}, flags...), id, address(to))...)
		p.moved()
		w.t.Logf("move %d, %s: away for %.0f ms of %.0f, %d MB; phases %v", n+1, mode, p.result.DowntimeMS, p.result.TotalMS,
			p.result.BytesSent>>20, p.result.Phases)
		if now := w.where(id); now != to {
			w.t.Fatalf("%s: runs on %s after move %d to %s", mode, now.Name, n+1, to.Name)
		}
		c.unharmed()
		at = to
	}
}

// runStranger starts it in a container that has the machine's own programs.
func (w *world) runStranger(h *lab.Host, s stranger) {
	w.t.Helper()
	source, err := os.ReadFile(filepath.Join("testdata", s.source))
	if err != nil {
		w.t.Fatal(err)
	}
	args := append([]string{s.program, "/" + s.source}, s.args...)
	if filepath.Ext(s.source) == ".java" {
		args = append(append([]string{}, s.args...), "/"+s.source, "4")
	}
	w.runChanged(h, "stranger", "busybox", func(bundle string, spec *specs.Spec) {
		rootfs := filepath.Join(h.Path(bundle), "rootfs")
		if err := os.WriteFile(filepath.Join(rootfs, s.source), source, 0o644); err != nil {
			w.t.Fatal(err)
		}
		for _, link := range []string{"lib", "lib64"} {
			if err := os.Symlink("usr/"+link, filepath.Join(rootfs, link)); err != nil {
				w.t.Fatal(err)
			}
		}
		dirs, _ := filepath.Glob("/etc/java-*")
		dirs = append(dirs, "/etc/alternatives", "/usr")
		for _, dir := range dirs {
			if err := os.MkdirAll(filepath.Join(rootfs, dir), 0o755); err != nil {
				w.t.Fatal(err)
			}
			spec.Mounts = append(spec.Mounts, specs.Mount{Destination: dir, Source: dir, Type: "bind", Options: []string{"rbind", "ro"}})
		}
		if s.change != nil {
			s.change(w, h, bundle, spec)
		}
	}, args...)
}

// runChanged is run, with a change to the bundle and its config.
func (w *world) runChanged(h *lab.Host, id, kind string, change func(bundle string, spec *specs.Spec), args ...string) {
	w.t.Helper()
	bundle := "/srv/bundles/" + id
	if err := h.Bundle(w.ctx, kind, bundle, args...); err != nil {
		w.t.Fatal(err)
	}
	path := h.Path(bundle + "/config.json")
	text, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		w.t.Fatal(err)
	}
	change(bundle, &spec)
	if text, err = json.Marshal(&spec); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.start(h, id)
}

func userNamespace(w *world, h *lab.Host, bundle string, spec *specs.Spec) {
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = maps, maps
	if _, err := h.Run(w.ctx, "chown", "-hR", "200000:200000", bundle+"/rootfs"); err != nil {
		w.t.Fatal(err)
	}
}

// deadlySeccomp kills whoever makes the calls that a migration makes from within a process.
func deadlySeccomp(_ *world, _ *lab.Host, _ string, spec *specs.Spec) {
	spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls: []specs.LinuxSyscall{{
			Names:  []string{"userfaultfd", "ptrace", "process_vm_readv", "vmsplice", "memfd_create"},
			Action: specs.ActKillProcess,
		}},
	}
}

func readOnly(_ *world, _ *lab.Host, _ string, spec *specs.Spec) {
	spec.Root.Readonly = true
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/tmp", Source: "tmpfs", Type: "tmpfs", Options: []string{"nosuid", "nodev"}})
}
