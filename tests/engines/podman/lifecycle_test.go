package podman

import (
	"strings"
	"testing"
	"time"
)

// ticking counts ten times a second, and ends with 7 when it is asked to.
const ticking = `trap 'echo bye; exit 7' TERM; i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.1; done`

// deaf ignores SIGTERM.
const deaf = `trap '' TERM; echo ready; while :; do sleep 0.1; done`

func TestStopAsksFirst(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", ticking)
	c.saying("tick 1")
	e.do("stop", "--time", "10", c.name)
	e.same("state", c.is(".State.Status"), "exited")
	e.same("exit code", c.is(".State.ExitCode"), "7")
	e.holds("log", c.logs(), "\nbye")
	e.same("wait", e.do("wait", c.name), "7")
}

func TestStopKillsWhoDoesNotListen(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", deaf)
	c.saying("ready")
	begin := time.Now()
	e.do("stop", "--time", "1", c.name)
	if took := time.Since(begin); took < time.Second {
		t.Errorf("stopped after %s", took)
	}
	e.same("exit code", c.is(".State.ExitCode"), "137")
}

func TestKillSendsTheSignal(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", `trap 'echo usr1' USR1; trap 'echo rt' RTMIN+3 2>/dev/null || trap 'echo rt' 37; echo ready; while :; do sleep 0.1; done`)
	c.saying("ready")
	e.do("kill", "--signal", "USR1", c.name)
	c.saying("usr1")
	e.do("kill", "--signal", "37", c.name)
	c.saying("rt")
	e.do("kill", c.name)
	e.same("wait", e.do("wait", c.name), "137")
	if got := e.try("kill", c.name); got.code == 0 {
		t.Error("kill of a dead container succeeded")
	}
}

func TestStoppedContainerStartsAgain(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", `echo run >>/runs; cat /runs; exec sleep 100`)
	c.saying("run")
	e.do("restart", "--time", "0", c.name)
	c.saying("run\nrun")
	e.do("stop", "--time", "0", c.name)
	e.do("start", c.name)
	e.eventually("the third run", func() bool { return strings.Count(c.exec("cat", "/runs"), "run") == 3 })
}

func TestCreateThenStartThenInit(t *testing.T) {
	e := newEngine(t)
	c := e.named("c")
	e.do("create", "--name", c.name, "--cgroup-parent", "/"+cgroupParent(), "localhost/migrate/busybox", "sh", "-c", "echo ran; exit 4")
	e.same("state", c.is(".State.Status"), "created")
	e.do("init", c.name)
	e.same("state", c.is(".State.Status"), "initialized")
	e.same("log before start", c.logs(), "")
	if got := e.try("start", "--attach", c.name); got.code != 4 || got.stdout != "ran\n" {
		t.Errorf("start: exit code %d, %q, %s", got.code, got.stdout, got.stderr)
	}
}

func TestPausedContainerStandsStill(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", ticking)
	c.saying("tick 2")
	e.do("pause", c.name)
	e.same("state", c.is(".State.Status"), "paused")
	before := c.logs()
	time.Sleep(500 * time.Millisecond)
	e.same("log of a paused container", c.logs(), before)
	e.do("unpause", c.name)
	e.same("state", c.is(".State.Status"), "running")
	e.eventually("it goes on", func() bool { return len(c.logs()) > len(before) })
}

func TestPausedContainerCanBeRemoved(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", ticking)
	e.do("pause", c.name)
	e.do("rm", "--force", "--time", "0", c.name)
	if got := e.try("container", "exists", c.name); got.code != 1 {
		t.Errorf("exists: exit code %d", got.code)
	}
}

func TestRemoveEndsEveryProcess(t *testing.T) {
	e := newEngine(t)
	// In the host's pid namespace nothing ends by itself with pid 1. The number is one that no other test sleeps.
	c := e.start("c", "sleep 1234 & sleep 1234 & sleep 1234", "--pid", "host")
	e.eventually("three are there", func() bool { return strings.Count(processes(t), "sleep 1234") >= 3 })
	e.do("rm", "--force", "--time", "0", c.name)
	e.eventually("all are gone", func() bool { return !strings.Contains(processes(t), "sleep 1234") })
}

func TestLogsFollow(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", "for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done; echo oops >&2")
	got := e.try("logs", "--follow", c.name) // it ends with the container
	e.same("log", got.stdout, "line 1\nline 2\nline 3\nline 4\nline 5\n")
	e.same("log of stderr", got.stderr, "oops\n")
	e.same("the last line", e.try("logs", "--tail", "2", c.name).stdout, "line 5\n")
}

func TestTopAndStatsShowTheProcesses(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", "sleep 987 & wait")
	e.eventually("both are there", func() bool { return strings.Contains(c.do("top", c.name, "pid", "args"), "sleep 987") })
	e.holds("top", e.do("top", c.name, "hpid", "user", "args"), "sleep 987")
	got := e.do("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", c.name)
	e.holds("stats", got, c.name+" 2 ")
	if strings.Contains(got, " 0B /") {
		t.Errorf("stats without memory: %s", got)
	}
}

func TestHealthCheckSeesTheContainer(t *testing.T) {
	e := newEngine(t)
	// The interval needs systemd's timers; whoever has none runs the check himself.
	c := e.start("c", "sleep 100", "--health-cmd", "test -e /tmp/well", "--health-interval", "disable", "--health-retries", "1")
	if got := e.try("healthcheck", "run", c.name); got.code != 1 {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	e.same("health", c.is(".State.Healthcheck.Status"), "unhealthy")
	c.exec("touch", "/tmp/well")
	e.do("healthcheck", "run", c.name)
	e.same("health", c.is(".State.Healthcheck.Status"), "healthy")
}

func TestFilesAreCopiedInAndOut(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", "sleep 100", "--tmpfs", "/scratch")
	cmd := command(t.Context(), "cp", "-", c.name+":/scratch")
	cmd.Stdin = strings.NewReader(tarOf(t, "note", "hello"))
	if got := e.finish(cmd); got.code != 0 {
		t.Fatalf("cp: %s", got.stderr)
	}
	// A tmpfs exists in the container's mount namespace alone, which podman enters by the runtime's pid.
	e.same("the copy", c.exec("cat", "/scratch/note"), "hello")
	e.holds("out again", e.do("cp", c.name+":/scratch/note", "-"), "hello")
	c.exec("touch", "/made")
	e.holds("diff", e.do("diff", c.name), "A /made")
}

func TestInspectTellsTheState(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", "sleep 100")
	e.same("state", c.is(".State.Status"), "running")
	e.same("runtime", c.is(".OCIRuntime"), runtimePath())
	e.same("what the pid runs", processName(t, c.is(".State.Pid")), "sleep")
	e.holds("ps", e.do("ps", "--format", "{{.Names}} {{.Status}}"), c.name+" Up ")
	e.do("kill", c.name)
	e.do("wait", c.name)
	e.same("state", c.is(".State.Status"), "exited")
	e.same("pid", c.is(".State.Pid"), "0")
}
