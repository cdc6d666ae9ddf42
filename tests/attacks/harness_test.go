// Package attacks tries the ways out of a container that runtimes were broken by, one test a CVE. The same attacks run
// against another runtime with ATTACKS_RUNTIME=/usr/sbin/runc: an old one must fall, which proves the test.
package attacks

import (
	"bytes"
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

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/testutil"
)

const (
	runtimeVariable = "ATTACKS_RUNTIME" // the program under attack
	dynamicVariable = "ATTACKS_DYNAMIC" // the same, linked dynamically; set in the second run of this program
	insideVariable  = "ATTACKS_INSIDE"  // set in the second run of this program
)

// TestMain builds the command once, and runs this program again in mount and network namespaces of its own: what an
// attack achieves there is gone with them.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // skips everything
	}
	if os.Getenv(insideVariable) == "" {
		code, err := again()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}
	// The init of a container that was made by create is an orphan, and ours to reap.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func again() (code int, err error) {
	dir, err := os.MkdirTemp("", "attacks-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	program, dynamic := os.Getenv(runtimeVariable), os.Getenv(runtimeVariable)
	if program == "" {
		program, dynamic = filepath.Join(dir, "migrate"), filepath.Join(dir, "dynamic")
		if err := build(program, dynamic); err != nil {
			return 0, err
		}
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVariable+"=1", runtimeVariable+"="+program, dynamicVariable+"="+dynamic)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// build makes the program as it ships, by the Makefile's flags, and one that has an interpreter: some attacks go through it.
func build(program, dynamic string) error {
	for _, args := range [][]string{
		{"make", "-s", "--no-print-directory", "-C", "../..", "-o", "setup", "program", "PROGRAM=" + program},
		{"go", "build", "-o", dynamic, "../../cmd/migrate"},
	} {
		if text, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("build migrate: %s: %w: %s", strings.Join(args, " "), err, text)
		}
	}
	return nil
}

// world is a directory with the state of a runtime, bundles, volumes, and a part of the host that must stay as it is.
type world struct {
	t       *testing.T
	dir     string
	program string
	mounts  map[string]bool // of the host, by mount point
}

// newWorld fails the test at its end when anything on the host changed, or a container left something behind.
func newWorld(t *testing.T) *world {
	t.Helper()
	testutil.Root(t)
	dir, err := os.MkdirTemp("", "attack-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	w := &world{t: t, dir: dir, program: os.Getenv(runtimeVariable)}
	for _, name := range []string{"host/dir/inner", "host/empty", "volume", "state"} {
		must(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
	}
	must(t, os.WriteFile(w.host("secret"), []byte("of the host\n"), 0o600))
	must(t, os.WriteFile(w.host("dir/file"), []byte("of the host too\n"), 0o640))
	before := w.canary()
	w.mounts = mountPoints(t, "/proc/self/mountinfo")
	t.Cleanup(func() {
		w.deleteAll()
		if after := w.canary(); before != after {
			t.Errorf("the host's files changed from\n%sto\n%s", before, after)
		}
		for point := range mountPoints(t, "/proc/self/mountinfo") {
			if !w.mounts[point] {
				t.Errorf("a mount was left on %s", point)
			}
		}
		must(t, os.RemoveAll(dir))
	})
	return w
}

// host is a path outside of every root and volume, whose tree no container may touch.
func (w *world) host(path string) string { return filepath.Join(w.dir, "host", path) }

// volume is a path in the directory that containers share, and that an attacker changes as he likes.
func (w *world) volume(path string) string { return filepath.Join(w.dir, "volume", path) }

// canary writes down everything about the host's tree. The change time gives away what was set and set back.
func (w *world) canary() string {
	w.t.Helper()
	var all strings.Builder
	must(w.t, filepath.WalkDir(w.host(""), func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		var text []byte
		if entry.Type().IsRegular() {
			text, err = os.ReadFile(path)
		}
		fmt.Fprintf(&all, "%s %o %d:%d %d links, changed %d.%09d %q\n", path, st.Mode, st.Uid, st.Gid, st.Nlink, st.Ctim.Sec, st.Ctim.Nsec, text)
		return err
	}))
	return all.String()
}

// mountPoints reads a mountinfo file, see proc_pid_mountinfo(5).
func mountPoints(t testing.TB, path string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	points := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			points[fields[4]] = true
		}
	}
	return points
}

// deleteAll removes what containers are left and makes sure that it is all gone.
func (w *world) deleteAll() {
	out, err := w.migrate("list", "-q")
	if err != nil {
		w.t.Errorf("list: %v: %s", err, out)
	}
	for id := range strings.FieldsSeq(out) {
		(&container{world: w, id: id}).delete()
	}
	left, err := os.ReadDir(filepath.Join(w.dir, "state"))
	if err != nil || len(left) > 0 {
		w.t.Errorf("left in the state directory: %v, %v", left, err)
	}
	if groups := testutil.Cgroups(filepath.Base(w.dir) + "*"); len(groups) > 0 {
		w.t.Errorf("cgroups are left: %v", groups)
	}
}

// migrate runs a verb of the runtime under attack and returns what it and the container print.
func (w *world) migrate(args ...string) (string, error) {
	return w.migrateWith(nil, args...)
}

func (w *world) migrateWith(change func(*exec.Cmd), args ...string) (string, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	// A file, not a pipe: what stays in the background must not hold it.
	out, err := os.CreateTemp(w.dir, "out-")
	must(w.t, err)
	defer func() { _ = errors.Join(out.Close(), os.Remove(out.Name())) }()
	cmd := exec.CommandContext(ctx, w.program, append([]string{"--root", filepath.Join(w.dir, "state")}, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	if change != nil {
		change(cmd)
	}
	err = cmd.Run()
	if ctx.Err() != nil {
		w.t.Fatalf("migrate %s hangs", strings.Join(args, " "))
	}
	_, seekErr := out.Seek(0, io.SeekStart)
	must(w.t, seekErr)
	var text bytes.Buffer
	_, readErr := text.ReadFrom(out)
	must(w.t, readErr)
	return text.String(), err
}

// container is one in the making: a root of busybox and a spec, which the test changes before it calls run or create.
type container struct {
	*world
	id     string
	bundle string
	rootfs string
	spec   *specs.Spec
}

// container makes the bundle of a container that runs args. The name is for those tests that have several.
func (w *world) container(name string, args ...string) *container {
	w.t.Helper()
	c := &container{world: w, id: filepath.Base(w.dir) + "-" + name, bundle: filepath.Join(w.dir, name)}
	c.rootfs = filepath.Join(c.bundle, "rootfs")
	for _, dir := range []string{"bin", "proc", "sys", "dev", "tmp", "etc", "run", "root"} {
		must(w.t, os.MkdirAll(filepath.Join(c.rootfs, dir), 0o755))
	}
	busybox, err := os.ReadFile(testutil.Command(w.t, "busybox"))
	must(w.t, err)
	must(w.t, os.WriteFile(filepath.Join(c.rootfs, "bin/busybox"), busybox, 0o755))
	for _, applet := range []string{
		"cat", "chmod", "cp", "dd", "echo", "env", "grep", "head", "id", "kill", "ln", "ls", "mkdir", "mount", "mv", "ps", "pwd",
		"readlink", "rm", "sed", "sh", "sleep", "stat", "test", "touch", "true", "umount", "wc",
	} {
		must(w.t, os.Symlink("busybox", filepath.Join(c.rootfs, "bin", applet)))
	}
	must(w.t, os.WriteFile(filepath.Join(c.rootfs, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644))
	c.spec = plainSpec(args)
	c.spec.Linux.CgroupsPath = "/" + c.id
	return c
}

// plainSpec is the spec that runc would write, with the capabilities that engines give.
func plainSpec(args []string) *specs.Spec {
	caps := []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
	return &specs.Spec{
		Version:  "1.0.2", // an old runtime must take it, too
		Hostname: "inside",
		Root:     &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
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

// bindMount is a bind of the host's source.
func bindMount(source, destination string, options ...string) specs.Mount {
	return specs.Mount{Source: source, Destination: destination, Type: "bind", Options: append([]string{"rbind"}, options...)}
}

func (c *container) writeSpec() {
	c.t.Helper()
	text, err := json.MarshalIndent(c.spec, "", "\t")
	must(c.t, err)
	must(c.t, os.WriteFile(filepath.Join(c.bundle, "config.json"), text, 0o644))
}

// run runs the container to its end and removes it. The output is the runtime's and the container's.
func (c *container) run() (string, error) {
	c.t.Helper()
	c.writeSpec()
	return c.migrate("run", "--bundle", c.bundle, c.id)
}

// create leaves the container waiting for start.
func (c *container) create() (string, error) {
	c.t.Helper()
	c.writeSpec()
	return c.migrate("create", "--bundle", c.bundle, c.id)
}

// start lets the container that create made run.
func (c *container) start() {
	c.t.Helper()
	if out, err := c.migrate("start", c.id); err != nil {
		c.t.Fatalf("start: %v: %s", err, out)
	}
}

// running creates and starts the container.
func (c *container) running() {
	c.t.Helper()
	if out, err := c.create(); err != nil {
		c.t.Fatalf("create: %v: %s", err, out)
	}
	c.start()
}

// exec runs a program in the running container. Options come before the id.
func (c *container) exec(options []string, args ...string) (string, error) {
	c.t.Helper()
	return c.migrate(append(append(append([]string{"exec"}, options...), c.id), args...)...)
}

// pid is that of the container's init; 0 without one.
func (c *container) pid() int {
	c.t.Helper()
	var state struct{ Pid int }
	if out, err := c.migrate("state", c.id); err == nil {
		must(c.t, json.Unmarshal([]byte(out), &state))
	}
	return state.Pid
}

// mountInfo lists the mounts of a created or running container.
func (c *container) mountInfo() []*mountinfo.Info {
	c.t.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", c.pid()))
	must(c.t, err)
	defer file.Close()
	mounts, err := mountinfo.GetMountsFromReader(file, nil)
	must(c.t, err)
	return mounts
}

// delete kills, reaps and removes the container.
func (c *container) delete() {
	c.t.Helper()
	pid := c.pid()
	if out, err := c.migrate("delete", "--force", c.id); err != nil {
		c.t.Errorf("delete %s: %v: %s", c.id, err, out)
	}
	for pid > 0 {
		if _, err := syscall.Wait4(pid, nil, 0, nil); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// allow gives the container capabilities that engines do not give.
func (c *container) allow(names ...string) {
	caps := c.spec.Process.Capabilities
	for _, set := range []*[]string{&caps.Bounding, &caps.Effective, &caps.Permitted} {
		*set = append((*set)[:len(*set):len(*set)], names...)
	}
}

// wantError fails the test when the output of a runtime that refused something does not say why.
func wantError(t testing.TB, out, want string) {
	t.Helper()
	if !strings.Contains(strings.ToLower(out), want) {
		t.Errorf("the error does not say %q: %s", want, out)
	}
}

// eventually waits for a condition.
func (w *world) eventually(what string, condition func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: never", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
