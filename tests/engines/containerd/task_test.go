package containerd

import (
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/testutil"
)

func TestTaskIsListedPausedAndResumed(t *testing.T) {
	e := newEngine(t, "task")
	e.detach("sleep 1000 & sleep 1000; true")
	if got := e.status(e.id); got != "RUNNING" {
		t.Errorf("tasks ls says %q", got)
	}
	e.eventually("tasks ps shows three processes", func() bool {
		return strings.Count(e.do("tasks", "ps", e.id), "\n") == 4
	})
	e.do("tasks", "pause", e.id)
	if got := e.status(e.id); got != "PAUSED" {
		t.Errorf("tasks ls says %q of a paused task", got)
	}
	file, frozen := "freezer.state", "FROZEN"
	if testutil.Cgroup2Alone() {
		file, frozen = "cgroup.freeze", "1"
	}
	if got := e.group("freezer", file); got != frozen {
		t.Errorf("%s of a paused task is %q", file, got)
	}
	if out, code := e.exec("true"); code == 0 || !strings.Contains(out, "cannot exec in a paused") {
		t.Errorf("exec in a paused task: exit code %d: %s", code, out)
	}
	e.do("tasks", "resume", e.id)
	if out, code := e.exec("echo again"); code != 0 || out != "again\n" {
		t.Errorf("exec after resume: exit code %d: %s", code, out)
	}
}

func TestExecRunsInTheContainer(t *testing.T) {
	e := newEngine(t, "exec")
	e.detach("echo first > /first; sleep 1000")
	tests := []struct {
		name   string
		flags  []string
		script string
		want   string
		code   int
	}{
		{"sees the container", nil, "e=$(cat /first); echo $e; exit 5", "first\n", 5},
		{"working directory", []string{"--cwd", "/tmp"}, "pwd", "/tmp\n", 0},
		{"user", []string{"--user", "1000"}, "id -u", "1000\n", 0},
	}
	e.eventually("the container runs", func() bool { _, code := e.exec("test -e /first"); return code == 0 })
	for _, tt := range tests {
		if out, code := e.exec(tt.script, tt.flags...); code != tt.code || out != tt.want {
			t.Errorf("%s: exit code %d: %q; want %d: %q", tt.name, code, out, tt.code, tt.want)
		}
	}
	if out, code := e.try("tasks", "exec", "--exec-id", "missing", e.id, "/no/such/program"); code != 1 || !strings.Contains(out, "no such file or directory") {
		t.Errorf("exec of nothing: exit code %d: %s", code, out)
	}
}

func TestSignalsReachTheProcesses(t *testing.T) {
	e := newEngine(t, "kill")
	e.detach(`trap 'echo got > /usr1' USR1; (trap 'echo child > /usr2' USR2; while :; do sleep 0.1; done) & trap '' USR2; touch /ready; while :; do sleep 0.1; done`)
	exists := func(file string) func() bool {
		return func() bool { _, code := e.exec("test -e " + file); return code == 0 }
	}
	e.eventually("the container is ready", exists("/ready"))
	e.do("tasks", "kill", "--signal", "SIGUSR1", e.id)
	e.eventually("SIGUSR1 reaches the first process", exists("/usr1"))
	e.do("tasks", "kill", "--all", "--signal", "SIGUSR2", e.id)
	e.eventually("SIGUSR2 reaches a child by --all", exists("/usr2"))
	if got := e.status(e.id); got != "RUNNING" {
		t.Errorf("after signals that are caught the task is %q", got)
	}
	e.do("tasks", "kill", "--signal", "SIGKILL", e.id)
	e.eventually("SIGKILL ends the task", func() bool { return e.status(e.id) == "STOPPED" })
	if out, _ := e.try("tasks", "rm", e.id); !strings.Contains(out, "137") {
		t.Errorf("exit status of a killed task: %s", out)
	}
}

func TestContainersOutliveTheDaemon(t *testing.T) {
	e := newEngine(t, "outlive")
	e.detach("sleep 1000")
	if err := e.kill(); err != nil {
		t.Fatal(err)
	}
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	e.eventually("the new daemon finds the task", func() bool { return e.status(e.id) == "RUNNING" })
	if out, code := e.exec("echo still"); code != 0 || out != "still\n" {
		t.Errorf("exec after the daemon's death: exit code %d: %s", code, out)
	}
}
