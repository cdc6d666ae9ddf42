package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const forever = "while :; do sleep 1; done"

func TestVerbsOfALife(t *testing.T) {
	h := newContainerHost(t, "trap 'echo hup > /tmp/hup' HUP; echo up > /tmp/up; "+forever, func(s *specs.Spec) {
		s.Annotations = map[string]string{"key": "value"}
	})
	id, pidFile := h.id("life"), filepath.Join(t.TempDir(), "pid")
	h.ok("create", "--pid-file", pidFile, id)
	state := h.state(id)
	if state.Status != "created" || state.Bundle != h.bundle || state.Annotations["key"] != "value" || state.Version != specs.Version {
		t.Errorf("state is %+v", state)
	}
	if pid, _ := os.ReadFile(pidFile); string(pid) != strconv.Itoa(state.Pid) || state.Pid == 0 {
		t.Errorf("pid file %q, state %d", pid, state.Pid)
	}
	if got := h.run("create", id); got.code != 1 || !strings.HasSuffix(message(t, got.stderr), "create failed: container with given ID already exists") {
		t.Errorf("a second create: exit code %d: %s", got.code, got.stderr)
	}
	h.ok("start", id)
	eventually(t, "the program runs", fileHas(filepath.Join(h.bundle, "rootfs/tmp/up"), "up"))
	if got := h.run("start", id); got.code != 1 || message(t, got.stderr) != "cannot start an already running container" {
		t.Errorf("a second start: exit code %d: %s", got.code, got.stderr)
	}
	h.checkLists(id, state.Pid)
	h.ok("kill", id, "hup")
	eventually(t, "the signal arrives", fileHas(filepath.Join(h.bundle, "rootfs/tmp/hup"), "hup"))
	h.ok("pause", id)
	if got := h.state(id).Status; got != "paused" {
		t.Errorf("status is %s", got)
	}
	if got := h.run("exec", id, "true"); got.code != 255 || !strings.Contains(got.stderr, "cannot exec in a paused container") {
		t.Errorf("exec: exit code %d: %s", got.code, got.stderr)
	}
	h.ok("resume", id)
	if got := h.run("resume", id); got.code != 1 || message(t, got.stderr) != "container not paused" {
		t.Errorf("a second resume: exit code %d: %s", got.code, got.stderr)
	}
	if got := h.run("delete", id); got.code != 1 || message(t, got.stderr) != "cannot delete container "+id+" that is not stopped: running" {
		t.Errorf("delete: exit code %d: %s", got.code, got.stderr)
	}
	if got := h.run("kill", id, "NOSUCH"); got.code != 1 || message(t, got.stderr) != `unknown signal "NOSUCH"` {
		t.Errorf("kill: exit code %d: %s", got.code, got.stderr)
	}
	h.ok("kill", id, "9")
	eventually(t, "the container stops", func() bool { return h.state(id).Status == "stopped" })
	if state := h.state(id); state.Pid != 0 {
		t.Errorf("a stopped container has pid %d", state.Pid)
	}
	if got := h.run("kill", id); got.code != 1 || message(t, got.stderr) != "container not running" {
		t.Errorf("kill: exit code %d: %s", got.code, got.stderr)
	}
	h.ok("kill", "--all", id)
	if got := h.run("start", id); got.code != 1 || message(t, got.stderr) != "cannot start a container that has stopped" {
		t.Errorf("start: exit code %d: %s", got.code, got.stderr)
	}
	if got := h.run("exec", id, "true"); got.code != 255 || message(t, got.stderr) != "exec failed: cannot exec in a stopped container" {
		t.Errorf("exec: exit code %d: %s", got.code, got.stderr)
	}
	h.ok("delete", id)
	if got := h.ok("list", "-q"); got != "" {
		t.Errorf("left: %s", got)
	}
}

func (h *host) state(id string) containerState {
	h.t.Helper()
	var state containerState
	if err := json.Unmarshal([]byte(h.ok("state", id)), &state); err != nil {
		h.t.Fatal(err)
	}
	return state
}

func (h *host) checkLists(id string, pid int) {
	h.t.Helper()
	table := strings.Split(h.ok("list"), "\n")
	if got := strings.Fields(table[0]); !slices.Equal(got, []string{"ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"}) {
		h.t.Errorf("head is %v", got)
	}
	if row := strings.Fields(table[1]); row[0] != id || row[1] != strconv.Itoa(pid) || row[2] != "running" || row[5] != "root" {
		h.t.Errorf("row is %v", row)
	}
	var list []containerState
	if err := json.Unmarshal([]byte(h.ok("list", "-f", "json")), &list); err != nil || len(list) != 1 || list[0].Owner != "root" {
		h.t.Errorf("list is %+v, error %v", list, err)
	}
	if got := h.run("list", "-f", "xml"); got.code != 1 || message(h.t, got.stderr) != "invalid format option" {
		h.t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	var pids []int
	if err := json.Unmarshal([]byte(h.ok("ps", "-f", "json", id)), &pids); err != nil || !slices.Contains(pids, pid) {
		h.t.Errorf("pids are %v, error %v", pids, err)
	}
	if got := h.ok("ps", id, "-o", "pid,args"); !strings.Contains(got, "PID") || !strings.Contains(got, strconv.Itoa(pid)+" sh -c") {
		h.t.Errorf("ps prints %q", got)
	}
}

func TestDeleteCleansUpWhatCannotBeLoaded(t *testing.T) {
	h := newContainerHost(t, "true")
	corrupt := h.id("corrupt") // its default cgroup is looked into
	for name, text := range map[string]string{corrupt: "{", "unborn": ""} {
		dir := filepath.Join(h.root, name)
		if err := os.MkdirAll(dir, 0o711); err != nil {
			t.Fatal(err)
		}
		if text != "" {
			if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := h.run("list"); got.code != 0 || !strings.Contains(got.stderr, "load container "+corrupt+": ") {
		t.Errorf("list: exit code %d: %s", got.code, got.stderr)
	}
	if got := h.run("delete", corrupt); got.code != 1 || !strings.Contains(message(t, got.stderr), "delete --force removes it") {
		t.Errorf("delete: exit code %d: %s", got.code, got.stderr)
	}
	if got := h.run("delete", "--force", corrupt); got.code != 0 || !strings.Contains(got.stderr, "no record of the container can be read") {
		t.Errorf("delete --force: exit code %d: %s", got.code, got.stderr)
	}
	if _, err := os.Stat(filepath.Join(h.root, corrupt)); err == nil {
		t.Error("the directory of the corrupt container is left")
	}
	if got := h.run("delete", "unborn"); got.code != 1 || message(t, got.stderr) != "container does not exist" {
		t.Errorf("delete: exit code %d: %s", got.code, got.stderr)
	}
	if _, err := os.Stat(filepath.Join(h.root, "unborn")); err == nil {
		t.Error("the directory of an unfinished creation is left")
	}
}

func TestExecFlags(t *testing.T) {
	h := newContainerHost(t, forever)
	id := h.id("exec")
	h.ok("run", "--detach", id)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-e", "A=1,2", "--env", "B=3", id, "sh", "-c", "echo $A $B"}, "1,2 3\n"},
		{[]string{"--cwd", "/tmp", id, "sh", "-c", "pwd"}, "/tmp\n"},
		{[]string{"-u", "1000:1001", "-g", "5,6", id, "id", "-G"}, "1001 5 6\n"},
		{[]string{id, "sh", "-c", "echo $0 $1", "--debug", "-t"}, "--debug -t\n"}, // the command's own flags
	} {
		if got := h.ok(append([]string{"exec"}, c.args...)...); got != c.want {
			t.Errorf("exec %v prints %q, want %q", c.args, got, c.want)
		}
	}
	if got := h.run("exec", id, "sh", "-c", "exit 42"); got.code != 42 || got.stderr != "" {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	if got := h.run("exec", id, "sh", "-c", "kill -9 $$"); got.code != 128+9 {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	if got := h.run("exec", id, "/nonexistent"); got.code != 255 || !strings.Contains(got.stderr, "exec failed: ") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	if got := h.run("exec", id); got.code != 255 || !strings.Contains(got.stderr, "exec args cannot be empty") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	if got := h.run("exec", "--cgroup", "a:b", "--cgroup", "x", id, "true"); got.code != 255 || !strings.Contains(got.stderr, "missing <controller>: prefix") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	if got := h.run("exec", "--cgroup", "../..", id, "true"); got.code != 255 || !strings.Contains(got.stderr, "bad sub cgroup path") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	process := filepath.Join(t.TempDir(), "process.json")
	if err := os.WriteFile(process, []byte(`{"args":["sh","-c","echo $X"],"env":["X=from file","PATH=/bin"],"cwd":"/"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := h.ok("exec", "-p", process, id); got != "from file\n" {
		t.Errorf("exec -p prints %q", got)
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	h.ok("exec", "--detach", "--pid-file", pidFile, id, "sleep", "1000")
	pid, err := os.ReadFile(pidFile)
	if err != nil || !strings.Contains(h.ok("ps", "-f", "json", id), string(pid)) {
		t.Errorf("pid %s, error %v", pid, err)
	}
}

func TestRunForwardsStdioAndStatus(t *testing.T) {
	h := newContainerHost(t, "cat; echo oops >&2; exit 3")
	cmd := h.command("run", h.id("status"))
	cmd.Stdin = strings.NewReader("through a pipe")
	if got := h.finish(cmd); got.code != 3 || got.stdout != "through a pipe" || got.stderr != "oops\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q", got.code, got.stdout, got.stderr)
	}
	if got := h.ok("list", "-q"); got != "" {
		t.Errorf("left: %s", got)
	}
	h.configure(forever)
	id := h.id("kept")
	wait := h.start(h.command("run", "--keep", id))
	eventually(t, "the container runs", func() bool { return strings.Contains(h.run("list").stdout, "running") })
	h.ok("kill", id, "KILL")
	if got := wait(); got.code != 128+9 {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	if got := h.state(id).Status; got != "stopped" {
		t.Errorf("a container that is to be kept is %s", got)
	}
}

func TestRunForwardsSignals(t *testing.T) {
	h := newContainerHost(t, "trap 'exit 7' TERM; echo up > /tmp/up; "+"while :; do sleep 0.05; done")
	cmd := h.command("run", h.id("signals"))
	wait := h.start(cmd)
	eventually(t, "the program runs", fileHas(filepath.Join(h.bundle, "rootfs/tmp/up"), "up"))
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := wait(); got.code != 7 {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}

func TestRunThatCannotStartLeavesNothing(t *testing.T) {
	h := newContainerHost(t, "true", func(s *specs.Spec) { s.Process.Args = []string{"/nonexistent"} })
	id := h.id("none")
	for _, args := range [][]string{{"run", id}, {"run", "-d", id}, {"create", id}} {
		if got := h.run(args...); got.code != 1 || !strings.Contains(message(t, got.stderr), "no such file or directory") {
			t.Errorf("%v: exit code %d: %s", args, got.code, got.stderr)
		}
		if left, _ := os.ReadDir(h.root); len(left) > 0 {
			t.Errorf("%v left: %v", args, left)
		}
	}
}

func TestPreservedDescriptorsReachTheProgram(t *testing.T) {
	h := newContainerHost(t, "cat <&3")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.command("run", "--preserve-fds", "1", h.id("fds"))
	cmd.ExtraFiles = []*os.File{r}
	if _, err := w.WriteString("by descriptor 3"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if got := h.finish(cmd); got.code != 0 || got.stdout != "by descriptor 3" {
		t.Errorf("exit code %d, stdout %q, stderr %q", got.code, got.stdout, got.stderr)
	}
}

func TestUpdateAndEvents(t *testing.T) {
	h := newContainerHost(t, forever)
	id := h.id("update")
	h.ok("run", "-d", id)
	h.ok("update", "--memory", "64m", "--pids-limit", "30", "--cpu-share", "512", id)
	var e struct {
		Type, ID string
		Data     struct {
			Memory struct{ Usage struct{ Limit int } }
			Pids   struct{ Limit, Current int }
		}
	}
	if err := json.Unmarshal([]byte(h.ok("events", "--stats", id)), &e); err != nil {
		t.Fatal(err)
	}
	if e.Type != "stats" || e.ID != id || e.Data.Memory.Usage.Limit != 64<<20 || e.Data.Pids.Limit != 30 || e.Data.Pids.Current == 0 {
		t.Errorf("event is %+v", e)
	}
	cmd := h.command("update", "-r", "-", id)
	cmd.Stdin = strings.NewReader(`{"pids":{"limit":40}}`)
	if got := h.finish(cmd); got.code != 0 {
		t.Errorf("update from stdin: %s", got.stderr)
	}
	for _, c := range []struct{ flag, value, want string }{
		{"--memory", "lots", "invalid value for memory: invalid size: 'lots'"},
		{"--cpu-period", "-1", "invalid value for cpu-period"},
		{"--l3-cache-schema", "x", "l3 cache schema is not enabled"},
		{"--resources", "/nonexistent", "no such file"},
	} {
		if got := h.run("update", c.flag, c.value, id); got.code != 1 || !strings.Contains(message(t, got.stderr), c.want) {
			t.Errorf("update %s %s: exit code %d: %s", c.flag, c.value, got.code, got.stderr)
		}
	}
	if got := h.run("events", "--interval", "0s", id); got.code != 1 || message(t, got.stderr) != "duration interval must be greater than 0" {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}

func TestSpecAndFeatures(t *testing.T) {
	h := newHost(t)
	h.ok("spec")
	if got := h.run("spec"); got.code != 1 || message(t, got.stderr) != "File config.json exists. Remove it first" {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	other := t.TempDir()
	h.ok("spec", "--rootless", "-b", other)
	data, err := os.ReadFile(filepath.Join(other, "config.json"))
	if err != nil || !strings.Contains(string(data), `"type": "user"`) || !strings.Contains(string(data), "\n\t\"") {
		t.Errorf("rootless spec is %s, error %v", data, err)
	}
	var features struct {
		OCIVersionMin, OCIVersionMax string
		Hooks, MountOptions          []string
		Linux                        struct{ Namespaces, Capabilities []string }
		Annotations                  map[string]string
	}
	if err := json.Unmarshal([]byte(h.ok("features")), &features); err != nil {
		t.Fatal(err)
	}
	if features.OCIVersionMax != specs.Version || len(features.Hooks) != 6 || len(features.Linux.Namespaces) != 8 ||
		!slices.Contains(features.Linux.Capabilities, "CAP_SYS_ADMIN") || !slices.Contains(features.MountOptions, "rbind") ||
		features.Annotations["org.opencontainers.runc.checkpoint.enabled"] != "true" {
		t.Errorf("features are %+v", features)
	}
	if got := h.ok("--version"); !strings.Contains(got, " version ") || !strings.Contains(got, "\nspec: "+specs.Version+"\n") {
		t.Errorf("version is %q", got)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "512": 512, "64k": 65536, "1m": 1 << 20, "1.5G": 3 << 29, "2gb": 2 << 30, "1GiB": 1 << 30, "-1": -1, "32 b": 32,
	} {
		if got, err := parseSize(text); got != want || err != nil {
			t.Errorf("%q is %d, error %v", text, got, err)
		}
	}
	for _, text := range []string{"", "k", "-2", "1x", "1kk", "9999999p", "1.2.3m", "m1"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}
