package keeper

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/monitor"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/runtime"
)

// Whatever keeps this process from becoming its monitor, a container that has come is not ended by that, and its output is kept.
func TestContainerThatCannotHaveAMonitorRunsOn(t *testing.T) {
	places := testPlaces(t)
	stdio, err := monitor.NewStdio(false, false)
	if err != nil {
		t.Fatal(err)
	}
	defer stdio.Close()
	init := exec.Command(testutil.Command(t, "sh"), "-c", "sleep 0.5; head -c 200000 /dev/zero | tr '\\0' o; exit 7")
	init.Stdout, init.SysProcAttr = stdio.Stdout, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := init.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := process.StartTime(init.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	writeState(t, places, func(s *runtime.State) { s.InitProcessPid, s.InitProcessStartTime = init.Process.Pid, start })
	c, err := remains(&Order{Places: places, Container: "web"}, testMove, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	lock, err := places.claim(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(c.StateDir()); err != nil { // where its socket would be
		t.Fatal(err)
	}
	h := &host{order: &PeerOrder{Places: places}, log: slog.New(slog.DiscardHandler)}
	h.place = &place{
		host: h, spec: &specs.Spec{}, identity: &identity{LogFile: filepath.Join(t.TempDir(), "log")},
		lock: lock, running: c.Container, stdio: stdio,
	}
	if err := h.watch(t.Context()); err == nil {
		t.Error("it has a monitor")
	}
	if err := init.Wait(); init.ProcessState.ExitCode() != 7 {
		t.Errorf("the program ended with %v", err)
	}
	if text, err := os.ReadFile(h.place.identity.LogFile); string(text) != strings.Repeat("o", 200_000) {
		t.Errorf("%d bytes are in the log, %v", len(text), err)
	}
}
