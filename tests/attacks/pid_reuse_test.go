package attacks

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/process"
)

// A container's init died, and a process of the host got its number: no verb may take it for init.
func TestStrangerWithTheNumberOfADeadInitIsLeftAlone(t *testing.T) {
	v := newStranger(t)
	v.recordInit(v.pid, 0)
	v.wantStopped()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"kill", v.id, "KILL"}, "container not running"},
		{[]string{"kill", v.id, "STOP"}, "container not running"},
		{[]string{"exec", v.id, "touch", v.host("touched")}, "cannot exec in a stopped container"},
		{[]string{"exec", "--ignore-paused", v.id, "touch", v.host("touched")}, "cannot exec in a stopped container"},
		{[]string{"pause", v.id}, "container not running"},
		{[]string{"resume", v.id}, "container not paused"},
		{[]string{"start", v.id}, "cannot start a container that has stopped"},
	} {
		if out, err := v.migrate(c.args...); err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%v: error %v: %s", c.args, err, out)
		}
		v.wantAlive()
	}
	if out, err := v.migrate("kill", "--all", v.id, "KILL"); err != nil {
		t.Errorf("kill --all: %v: %s", err, out)
	}
	if out, err := v.migrate("ps", "--format", "json", v.id); err != nil || strings.Contains(out, fmt.Sprint(v.pid)) {
		t.Errorf("ps: %v: %s", err, out)
	}
	if out, err := v.migrate("delete", "--force", v.id); err != nil {
		t.Errorf("delete: %v: %s", err, out)
	}
	v.wantAlive()
}

// The same with what delete --force goes by when the state cannot be read.
func TestStrangerSurvivesTheForcedDeleteOfACorruptState(t *testing.T) {
	v := newStranger(t)
	v.recordInit(v.pid, 0)
	must(t, os.Truncate(filepath.Join(v.state(), "state.json"), 100))
	if out, err := v.migrate("delete", "--force", v.id); err != nil {
		t.Errorf("delete: %v: %s", err, out)
	}
	v.wantAlive()
}

// Were it not for the time at which a process started, the stranger would be killed: the test above can fail.
func TestStrangerWithNumberAndTimeOfInitIsKilled(t *testing.T) {
	v := newStranger(t)
	start, err := process.StartTime(v.pid)
	must(t, err)
	v.recordInit(v.pid, start)
	if out, err := v.migrate("kill", v.id, "KILL"); err != nil {
		t.Errorf("kill: %v: %s", err, out)
	}
	select {
	case <-v.ended:
	case <-time.After(10 * time.Second):
		t.Error("the stranger lives")
	}
}

// stranger is a process of the host beside a container whose init is dead.
type stranger struct {
	*container
	pid   int
	ended chan struct{}
}

func newStranger(t *testing.T) *stranger {
	w := newWorld(t)
	c := w.container("victim", "sleep", "1000")
	c.running()
	init := c.pid()
	must(t, syscall.Kill(init, syscall.SIGKILL))
	_, err := syscall.Wait4(init, nil, 0, nil)
	must(t, err)
	cmd := exec.Command("sleep", "1000")
	must(t, cmd.Start())
	v := &stranger{container: c, pid: cmd.Process.Pid, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(v.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-v.ended
	})
	return v
}

func (v *stranger) state() string { return filepath.Join(v.dir, "state", v.id) }

// recordInit changes who init is in both records of the container; start 0 leaves the time.
func (v *stranger) recordInit(pid int, start uint64) {
	v.t.Helper()
	for _, name := range []string{"state.json", "birth.json"} {
		path := filepath.Join(v.state(), name)
		text, err := os.ReadFile(path)
		must(v.t, err)
		var record map[string]json.RawMessage
		must(v.t, json.Unmarshal(text, &record))
		record["init_process_pid"] = fmt.Append(nil, pid)
		if start != 0 {
			record["init_process_start"] = fmt.Append(nil, start)
		}
		text, err = json.Marshal(record)
		must(v.t, err)
		must(v.t, os.WriteFile(path, text, 0o600))
	}
}

func (v *stranger) wantStopped() {
	v.t.Helper()
	var state struct {
		Pid    int
		Status string
	}
	out, err := v.migrate("state", v.id)
	must(v.t, err)
	must(v.t, json.Unmarshal([]byte(out), &state))
	if state.Status != "stopped" || state.Pid != 0 {
		v.t.Errorf("the container is %s with pid %d", state.Status, state.Pid)
	}
}

// wantAlive looks whether the stranger still sleeps, in peace.
func (v *stranger) wantAlive() {
	v.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", v.pid))
	if err != nil || !strings.Contains(string(stat), ") S ") {
		v.t.Errorf("the stranger is not as it was: %v: %s", err, stat)
	}
}
