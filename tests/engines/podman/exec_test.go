package podman

import (
	"strings"
	"testing"
)

func TestExecRunsAsAsked(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", "sleep 100", "--env", "ORIGIN=image")
	got := e.do("exec", "--user", "someone", "--env", "COLOUR=red", "--workdir", "/tmp", c.name, "sh", "-c", "id -u; id -G; echo $COLOUR $ORIGIN; pwd")
	e.same("surroundings", got, "1000\n1000 2000\nred image\n/tmp")
	e.same("processes it sees", c.exec("sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '"), "sleep 100 ")
}

func TestExecsExitCodeIsTheProgramsOwn(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", "sleep 100")
	tests := []struct {
		name string
		code int
		args []string
	}{
		{"its own", 7, []string{"sh", "-c", "exit 7"}},
		{"killed", 128 + 15, []string{"sh", "-c", "kill $$"}},
		{"not found", 127, []string{"no-such-program"}},
		{"not executable", 126, []string{"/etc/passwd"}},
	}
	for _, tt := range tests {
		if got := e.try(append([]string{"exec", c.name}, tt.args...)...); got.code != tt.code {
			t.Errorf("%s: exit code %d, want %d: %s", tt.name, got.code, tt.code, got.stderr)
		}
	}
	e.same("state", c.is(".State.Status"), "running")
}

func TestExecTakesInput(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", "sleep 100")
	cmd := command(t.Context(), "exec", "--interactive", c.name, "wc", "-c")
	cmd.Stdin = strings.NewReader(strings.Repeat("x", 100_000))
	e.same("bytes that arrived", e.finish(cmd).stdout, "100000\n")
}

func TestExecStaysWithinTheContainersRights(t *testing.T) {
	e := newEngine(t)
	const rights = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status"
	c := e.start("c", "sleep 100", "--cap-drop", "all", "--cap-add", "kill", "--security-opt", "no-new-privileges")
	e.same("rights of exec", c.exec("sh", "-c", rights), "CapEff:\t0000000000000020\nCapBnd:\t0000000000000020\nNoNewPrivs:\t1\nSeccomp:\t2")
	privileged := e.do("exec", "--privileged", c.name, "grep", "CapBnd", "/proc/self/status")
	if privileged == "CapBnd:\t0000000000000020" {
		t.Errorf("exec --privileged has %s", privileged)
	}
}

func TestDetachedExecGoesOn(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", "sleep 100")
	e.do("exec", "--detach", c.name, "sh", "-c", "sleep 0.2; echo done >/tmp/done; sleep 100")
	e.eventually("the program wrote", func() bool { return e.try("exec", c.name, "cat", "/tmp/done").stdout == "done\n" })
}

func TestExecIsRefusedWhenPausedOrStopped(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", "sleep 100")
	e.do("pause", c.name)
	if got := e.try("exec", c.name, "true"); got.code == 0 {
		t.Error("exec in a paused container succeeded")
	}
	e.do("unpause", c.name)
	e.do("stop", "--time", "0", c.name)
	if got := e.try("exec", c.name, "true"); got.code == 0 {
		t.Error("exec in a stopped container succeeded")
	}
}
