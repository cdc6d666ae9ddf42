package hooks

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func shell(script string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}
}

func TestRunGivesTheStateOnStdin(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state")
	all := &specs.Hooks{Poststart: []specs.Hook{shell("cat > " + file)}}
	state := &specs.State{Version: specs.Version, ID: "web", Status: specs.StateRunning, Pid: 42}
	if err := Run(context.Background(), all, Poststart, state); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(got), `"id":"web"`) || !strings.Contains(string(got), `"pid":42`) {
		t.Errorf("the hook read %s", got)
	}
}

func TestRunStopsAtTheFirstFailureAndNamesIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "later")
	all := &specs.Hooks{CreateRuntime: []specs.Hook{shell("true"), shell("echo no bridge >&2; exit 3"), shell("touch " + file)}}
	err := Run(context.Background(), all, CreateRuntime, &specs.State{})
	if err == nil || !strings.Contains(err.Error(), "error running createRuntime hook #1: exit status 3: no bridge") {
		t.Errorf("error is %v", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a hook ran after one that failed")
	}
}

func TestRunEndsAHookThatHangs(t *testing.T) {
	limit := 1
	hook := shell("sleep 30")
	hook.Timeout = &limit
	begin := time.Now()
	err := Run(context.Background(), &specs.Hooks{Poststop: []specs.Hook{hook}}, Poststop, &specs.State{})
	if err == nil || !strings.Contains(err.Error(), "hook ran past specified timeout of 1.0s") {
		t.Errorf("error is %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestRunDoesNotWaitForADaemonOfTheHook(t *testing.T) {
	file := filepath.Join(t.TempDir(), "daemon")
	done := make(chan error, 1)
	go func() {
		done <- Run(context.Background(), &specs.Hooks{Poststop: []specs.Hook{shell("sleep 1000 & echo $! > " + file)}}, Poststop, &specs.State{})
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it waits for the daemon")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	daemon, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(daemon, syscall.SIGKILL); err != nil { // it is still there
		t.Error(err)
	}
}

func TestHooksGetNoEnvironmentOfOurs(t *testing.T) {
	t.Setenv("SECRET_OF_THE_RUNTIME", "x")
	hook := shell(`test -z "$SECRET_OF_THE_RUNTIME"`)
	hook.Env = nil
	if err := Run(context.Background(), &specs.Hooks{Prestart: []specs.Hook{hook}}, Prestart, &specs.State{}); err != nil { //nolint:staticcheck // SA1019: still used by engines.
		t.Error(err)
	}
}
