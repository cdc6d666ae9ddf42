package runtime

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/process"
)

// A child that lives on in the session of a dead init keeps its number in use, as a session's.
func TestDeadLeaderOfALivingSessionIsNotRunning(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "sleep 1000 >/dev/null & echo $!")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := process.StartTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(child, syscall.SIGKILL) }()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := procSignal(cmd.Process.Pid, start, 0); !errors.Is(err, ErrNotRunning) {
		t.Errorf("signal: %v", err)
	}
	c := &Container{state: &State{InitProcessPid: cmd.Process.Pid, InitProcessStartTime: start}}
	if err := c.Wait(context.Background()); err != nil {
		t.Errorf("wait: %v", err)
	}
	if _, err := os.Stat("/proc/" + strconv.Itoa(child)); err != nil {
		t.Errorf("the child did not live on: %v", err)
	}
}
