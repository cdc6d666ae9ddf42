package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/console"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/runtime"
)

// person is somebody without rights on this machine. Who that is only the person's own commands see: they run in a mount
// namespace in which passwd, subuid and subgid in /etc are files of the test.
type person struct {
	uid    int
	cgroup string // where the person's commands run; "": where the test does
	dir    string // holds those files, $XDG_RUNTIME_DIR and a copy of this program that the person may execute
}

// subordinate are the ranges that the person may map besides the own id, as first id and count.
var subordinate = [][2]int{{210000, 1000}, {320000, 5}, {430000, 65536}}

// newPersonsHost is a host whose commands are a person's.
func newPersonsHost(t *testing.T, script string, changes ...func(*specs.Spec)) *host {
	t.Helper()
	testutil.Root(t)
	for _, program := range []string{"unshare", "setpriv", "newuidmap", "newgidmap"} {
		testutil.Command(t, program)
	}
	p := &person{uid: 70000 + os.Getpid()%10000, dir: t.TempDir()}
	name := fmt.Sprintf("person%d", p.uid)
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	var ranges strings.Builder
	for _, r := range subordinate {
		fmt.Fprintf(&ranges, "%s:%d:%d\n", name, r[0], r[1])
	}
	if err := os.Mkdir(filepath.Join(p.dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.write(t, "passwd", string(passwd)+fmt.Sprintf("%s:x:%d:%d::/:/bin/sh\n", name, p.uid, p.uid))
	p.write(t, "subuid", ranges.String())
	p.write(t, "subgid", ranges.String())
	if err := os.Link(os.Args[0], filepath.Join(p.dir, "migrate")); err != nil { // on another file system
		program, err := os.ReadFile(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.dir, "migrate"), program, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"run", "state"} {
		if err := os.Mkdir(filepath.Join(p.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	h := newContainerHost(t, script, append([]func(*specs.Spec){runtime.MakeRootless, p.mapOwn}, changes...)...)
	h.as, h.root = p, filepath.Join(p.dir, "state", "root")
	// What testing makes is in a directory of root's alone.
	if err := os.Chmod(filepath.Dir(p.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	p.own(t, h.bundle, filepath.Join(p.dir, "run"), filepath.Join(p.dir, "state"))
	return h
}

func (p *person) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "etc", name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// own gives directories to the person, with what is in them.
func (p *person) own(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(path, p.uid, p.uid)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// mapOwn is what MakeRootless does for whoever calls it, for the person: nothing but the own id.
func (p *person) mapOwn(s *specs.Spec) {
	own := []specs.LinuxIDMapping{{HostID: uint32(p.uid), Size: 1}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = own, own
}

// mapAll maps every subordinate range behind the own id.
func (h *host) mapAll(s *specs.Spec) {
	maps := []specs.LinuxIDMapping{{HostID: uint32(h.as.uid), Size: 1}}
	next := uint32(1)
	for _, r := range subordinate {
		maps = append(maps, specs.LinuxIDMapping{ContainerID: next, HostID: uint32(r[0]), Size: uint32(r[1])})
		next += uint32(r[1])
	}
	s.Linux.UIDMappings, s.Linux.GIDMappings = maps, slices.Clone(maps)
}

// become changes a command of root's into the person's.
func (p *person) become(cmd *exec.Cmd) {
	const script = `mount -t overlay -o "lowerdir=$0/etc:/etc" etc /etc || exit
		[ -z "$CGROUP" ] || echo $$ > "$CGROUP/cgroup.procs" || exit
		exec "$@"`
	args := []string{
		"unshare", "--mount", "--propagation", "private", "--", "sh", "-c", script, p.dir,
		"setpriv", fmt.Sprintf("--reuid=%d", p.uid), fmt.Sprintf("--regid=%d", p.uid), "--clear-groups", "--inh-caps=-all",
		filepath.Join(p.dir, "migrate"),
	}
	cmd.Args = append(args, cmd.Args[1:]...)
	cmd.Path, cmd.Err = exec.LookPath(args[0])
	cmd.Env = append(cmd.Env, "CGROUP="+p.cgroup, "XDG_RUNTIME_DIR="+filepath.Join(p.dir, "run"))
}

func TestRootlessLife(t *testing.T) {
	h := newPersonsHost(t, "trap 'echo usr1 > /tmp/usr1' USR1; echo up > /tmp/up; "+forever)
	id := h.id("rootless")
	h.ok("create", id)
	if got := h.state(id); got.Status != "created" {
		t.Errorf("state is %+v", got)
	}
	h.ok("start", id)
	eventually(t, "the program runs", fileHas(filepath.Join(h.bundle, "rootfs/tmp/up"), "up"))
	if got := h.ok("exec", id, "sh", "-c", "id -u; cat /proc/self/uid_map"); got != fmt.Sprintf("0\n%10d %10d %10d\n", 0, h.as.uid, 1) {
		t.Errorf("exec prints %q", got)
	}
	h.ok("kill", id, "USR1")
	eventually(t, "the signal arrives", fileHas(filepath.Join(h.bundle, "rootfs/tmp/usr1"), "usr1"))
	if row := strings.Fields(strings.Split(h.ok("list"), "\n")[1]); row[0] != id || row[2] != "running" {
		t.Errorf("list has %q", row)
	}
	if got := h.run("delete", id); got.code != 1 || !strings.Contains(got.stderr, "that is not stopped: running") {
		t.Errorf("delete: exit code %d: %s", got.code, got.stderr)
	}
	h.ok("kill", id, "KILL")
	eventually(t, "the container stops", func() bool { return h.state(id).Status == "stopped" })
	h.ok("delete", id)
	if got := h.ok("list", "-q"); got != "" {
		t.Errorf("left: %s", got)
	}
}

// Without a cgroup there is no freezer and no list of processes: the verbs that need one say so, and do nothing.
func TestRootlessWithoutCgroupRefusesWhatNeedsOne(t *testing.T) {
	h := newPersonsHost(t, forever)
	id := h.id("nocgroup")
	h.ok("run", "-d", id)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"pause", id}, "cgroup"},
		{[]string{"update", "--pids-limit", "20", id}, "cgroup"},
	} {
		if got := h.run(c.args...); got.code != 1 || !strings.Contains(message(t, got.stderr), c.want) {
			t.Errorf("%v: exit code %d: %s", c.args, got.code, got.stderr)
		}
	}
	if got := h.run("ps", id); got.code != 1 || !strings.Contains(message(t, got.stderr), "cgroup") {
		t.Errorf("ps: exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
	if got := h.state(id).Status; got != "running" {
		t.Errorf("it is %s", got)
	}
	if got := h.run("--rootless", "false", "run", h.id("strict")); got.code != 1 || !strings.Contains(message(t, got.stderr), "permission denied") {
		t.Errorf("run --rootless=false: exit code %d: %s", got.code, got.stderr)
	}
	h.configure("true", runtime.MakeRootless, h.as.mapOwn, func(s *specs.Spec) {
		limit := int64(20)
		s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
	})
	if got := h.run("run", h.id("limited")); got.code != 1 || !strings.Contains(message(t, got.stderr), "limit") {
		t.Errorf("run with a limit that cannot be set: exit code %d: %s", got.code, got.stderr)
	}
}

// newuidmap(1) takes as many ranges as the administrator gave out.
func TestRootlessMapsEverySubordinateRange(t *testing.T) {
	h := newPersonsHost(t, "true")
	h.configure("cat /proc/self/uid_map /proc/self/gid_map; echo; "+forever, runtime.MakeRootless, h.mapAll)
	if err := os.Chmod(filepath.Join(h.bundle, "rootfs/tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	id := h.id("ranges")
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := h.command("run", "-d", id)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, m := range [][3]int{{0, h.as.uid, 1}, {1, 210000, 1000}, {1001, 320000, 5}, {1006, 430000, 65536}} {
		fmt.Fprintf(&want, "%10d %10d %10d\n", m[0], m[1], m[2])
	}
	eventually(t, "the maps are those of the spec", fileHas(out.Name(), want.String()+want.String()+"\n"))
	h.ok("exec", "--user", "1003:66000", id, "sh", "-c", "echo > /tmp/f")
	info, err := os.Stat(filepath.Join(h.bundle, "rootfs/tmp/f"))
	if err != nil {
		t.Fatal(err)
	}
	if uid, gid := ids(info); uid != 320002 || gid != 430000+66000-1006 {
		t.Errorf("a file of 1003:66000 is %d:%d's outside", uid, gid)
	}
	if got := h.ok("exec", "--user", "1002:500", id, "id", "-u"); got != "1002\n" {
		t.Errorf("exec prints %q", got)
	}
}

func TestRootlessRefusesForeignIDs(t *testing.T) {
	h := newPersonsHost(t, "true", func(s *specs.Spec) {
		s.Linux.UIDMappings = append(s.Linux.UIDMappings, specs.LinuxIDMapping{ContainerID: 1, HostID: 1, Size: 1})
	})
	got := h.run("run", h.id("foreign"))
	if text := message(t, got.stderr); got.code != 1 || !strings.Contains(text, "newuidmap") || !strings.Contains(text, "/etc/subuid") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	if left, _ := os.ReadDir(h.root); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// spec --rootless writes what runs as it is: the host's network, /sys of the host, no group that is not mapped.
func TestRootlessSpecRunsAsItIs(t *testing.T) {
	h := newPersonsHost(t, "")
	config := filepath.Join(h.bundle, "config.json")
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	h.ok("spec", "--rootless")
	master, path, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	tty, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.command("run", h.id("asis"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	screen := newScreen(master)
	net, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	ask := `id -u; ls -l /proc/self/ns/net; tty; cat /proc/mounts; [ -w /sys/kernel ] || echo ro sys; ls /sys/class/net; exit 4`
	if _, err := master.Write([]byte(ask + "\r")); err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"the host's network": net, "a terminal": "/dev/pts/0", "no group for it": "devpts /dev/pts devpts rw,nosuid,noexec,relatime,mode=620,ptmxmode=666",
		"a /sys that is not writable": "ro sys",
	} {
		eventually(t, what, screen.shows(text))
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 4 {
		t.Errorf("exit code %d", code)
	}
}

func TestRootlessRootIsInTheRuntimeDirectory(t *testing.T) {
	h := newPersonsHost(t, forever)
	h.root = ""
	id := h.id("xdg")
	h.ok("run", "-d", id)
	info, err := os.Stat(filepath.Join(h.as.dir, "run", "migrate"))
	if err != nil || info.Mode() != os.ModeDir|os.ModeSticky|0o700 {
		t.Errorf("the default root is %v, error %v", info, err)
	}
	if _, err := os.Stat(filepath.Join(h.as.dir, "run", "migrate", id)); err != nil {
		t.Error(err)
	}
	execOnTerminal(t, h, id)
	h.ok("delete", "--force", id)
}

func ids(info os.FileInfo) (uid, gid int) {
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid)
}
