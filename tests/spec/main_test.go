// Package spec tests config.json field by field: containers that the built program runs say what became of each.
// docs/spec.md lists the fields with their tests.
package spec

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/runtime"
	"github.com/livemigrate/migrate/tests/sandbox"
)

// programs is the directory of the built programs, and tells the second run of the test program from the first.
const programs = "SPEC_PROGRAMS"

func TestMain(m *testing.M) {
	if os.Geteuid() == 0 && os.Getenv(programs) == "" {
		code, err := again()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// again builds migrate and the probe, and runs this program in a network and a mount namespace of its own: links and
// mounts of the tests go with them.
func again() (code int, err error) {
	dir, err := os.MkdirTemp("", "spec-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if _, err := sandbox.Build(dir); err != nil {
		return 0, err
	}
	build := exec.Command("go", "build", "-o", dir+"/probe", "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // the containers have no C library
	if text, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build probe: %w: %s", err, text)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), programs+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// box is a bundle with busybox and the probe, and a root of its own.
type box struct {
	t                    *testing.T
	bundle, rootfs, root string
	id                   string
	spec                 *specs.Spec
	env                  []string // of migrate, besides the test's own
}

// newBox has a program that is a shell script. Whatever a test leaves of its containers is an error, and removed.
func newBox(t *testing.T, script string) *box {
	t.Helper()
	testutil.Root(t)
	busybox := testutil.Command(t, "busybox")
	b := &box{t: t, bundle: t.TempDir(), root: filepath.Join(t.TempDir(), "root")}
	b.rootfs = filepath.Join(b.bundle, "rootfs")
	b.id = fmt.Sprintf("spec-%d-%d", os.Getpid(), time.Now().UnixNano()) // the cgroup has its name, too
	for _, dir := range []string{"bin", "dev", "etc", "proc", "sys", "tmp", "run"} {
		must(t, os.MkdirAll(filepath.Join(b.rootfs, dir), 0o755))
	}
	// A user namespace must be able to pass.
	for dir := b.bundle; dir != filepath.Dir(os.TempDir()) && len(dir) > 4; dir = filepath.Dir(dir) {
		if dir != os.TempDir() {
			must(t, os.Chmod(dir, 0o755))
		}
	}
	for name, path := range map[string]string{"busybox": busybox, "probe": filepath.Join(os.Getenv(programs), "probe")} {
		data, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(b.rootfs, "bin", name), data, 0o755))
	}
	for name := range strings.FieldsSeq("awk cat date domainname echo env grep head hostname id ip ls mkdir mknod mount pwd readlink sed sh sleep sort stat stty test touch true tty ulimit umask wc") {
		must(t, os.Symlink("busybox", filepath.Join(b.rootfs, "bin", name)))
	}
	b.spec = runtime.ExampleSpec()
	b.spec.Root.Readonly = false
	b.spec.Process.Terminal = false
	b.spec.Process.Args = []string{"sh", "-c", script}
	b.spec.Process.Env = []string{"PATH=/bin"}
	t.Cleanup(func() {
		if got := b.migrate("delete", "--force", b.id); got.code != 0 {
			t.Errorf("delete: %s", got.stderr)
		}
		if left, _ := os.ReadDir(b.root); len(left) > 0 {
			t.Errorf("left in the root: %v", left)
		}
	})
	return b
}

// write stores config.json.
func (b *box) write() {
	b.t.Helper()
	data, err := json.Marshal(b.spec)
	must(b.t, err)
	must(b.t, os.WriteFile(filepath.Join(b.bundle, "config.json"), data, 0o644))
}

type result struct {
	stdout, stderr string
	code           int
}

// command is migrate on this root, in the bundle's directory.
func (b *box) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(os.Getenv(programs), "migrate"), append([]string{"--root", b.root}, args...)...)
	cmd.Dir = b.bundle
	cmd.Env = append(append(os.Environ(), "XDG_RUNTIME_DIR="), b.env...)
	return cmd
}

// migrate runs a verb that must end by itself. A detached container keeps its output, so that goes to files.
func (b *box) migrate(args ...string) result {
	b.t.Helper()
	return finish(b.t, b.command(args...))
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	stdout, stderr := output(t), output(t)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	must(t, cmd.Start())
	timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		t.Errorf("%v did not end", cmd.Args[1:])
	}
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return result{text(t, stdout.Name()), text(t, stderr.Name()), cmd.ProcessState.ExitCode()}
}

func output(t *testing.T) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "output")
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// run runs the container to its end.
func (b *box) run() result {
	b.t.Helper()
	b.write()
	return b.migrate("run", b.id)
}

// start leaves the container running.
func (b *box) start() {
	b.t.Helper()
	b.write()
	b.ok("run", "--detach", b.id)
}

// ok wants success and returns what was printed.
func (b *box) ok(args ...string) string {
	b.t.Helper()
	got := b.migrate(args...)
	if got.code != 0 {
		b.t.Fatalf("%v: exit code %d: %s", args, got.code, got.stderr)
	}
	return got.stdout
}

// stateDir is where the state of the container is.
func (b *box) stateDir() string { return filepath.Join(b.root, b.id) }

// row is a container with a change of its spec, and what its script prints.
type row struct {
	name   string
	change func(*box)
	script string
	want   string
}

// inside runs each row's container.
func inside(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newBox(t, r.script)
			if r.change != nil {
				r.change(b)
			}
			if got := b.run(); got.stdout != r.want {
				t.Errorf("exit code %d, the container printed:\n%s\nwant:\n%s\nstderr: %s", got.code, got.stdout, r.want, got.stderr)
			}
		})
	}
}

// refused wants each row's config refused with a text, and nothing left; the script is not used.
func refused(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newBox(t, "true")
			r.change(b)
			got := b.run()
			if got.code == 0 || !strings.Contains(got.stderr, r.want) || strings.Count(got.stderr, "\n") != 1 {
				t.Errorf("exit code %d, said %q, and not in one line %q", got.code, got.stderr, r.want)
			}
		})
	}
}

func has(namespace specs.LinuxNamespaceType, path string) specs.LinuxNamespace {
	return specs.LinuxNamespace{Type: namespace, Path: path}
}

// userNamespace maps the container's ids to host ids from first on, and gives it its root.
func (b *box) userNamespace(first uint32) {
	b.t.Helper()
	ids := []specs.LinuxIDMapping{{HostID: first, Size: 65536}}
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, has(specs.UserNamespace, ""))
	b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings = ids, ids
	must(b.t, filepath.WalkDir(b.rootfs, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(first), int(first))
	}))
}

func (b *box) file(path, content string) string {
	b.t.Helper()
	if !filepath.IsAbs(path) {
		path = filepath.Join(b.rootfs, path)
	}
	must(b.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(b.t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return string(data)
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// cpus are those that this process may run on, as the kernel lists them, and the first and the last of them: on a small
// machine the same.
func cpus(t *testing.T) (first, last, all string) {
	t.Helper()
	_, rest, _ := strings.Cut(text(t, "/proc/self/status"), "Cpus_allowed_list:\t")
	all, _, _ = strings.Cut(rest, "\n")
	numbers := strings.FieldsFunc(all, func(r rune) bool { return r == ',' || r == '-' })
	return numbers[0], numbers[len(numbers)-1], all
}

func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for range 1000 {
		if check() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("it did not happen: %s", what)
}

func lines(data string) []string { return strings.Split(strings.TrimSpace(data), "\n") }

func itoa(n int) string { return strconv.Itoa(n) }

func pointer[T any](v T) *T { return &v }

// receiveFile takes a descriptor from the first who connects, nil when none comes.
func receiveFile(listener *net.UnixListener) *os.File {
	file, _ := receiveFileAndText(listener)
	return file
}

func receiveFileAndText(listener *net.UnixListener) (*os.File, string) {
	conn, err := listener.AcceptUnix()
	if err != nil {
		return nil, ""
	}
	defer conn.Close()
	body, oob := make([]byte, 64<<10), make([]byte, syscall.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(body, oob)
	if err != nil {
		return nil, ""
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) == 0 {
		return nil, string(body[:n])
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return nil, string(body[:n])
	}
	return os.NewFile(uintptr(fds[0]), "passed"), string(body[:n])
}
