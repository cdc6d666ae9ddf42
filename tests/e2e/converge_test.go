package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// hasty writes all of its memory several times while a round sends it: only a slower one can be stopped for a moment.
func hasty(w *world) (*push, *client) {
	w.t.Helper()
	w.run(w.A, "web", "workload", "memory", "--rate", "3000", "4")
	c := w.checkWorkload() // before: a slow container answers slowly
	return pushSlowly(w), c
}

func pushSlowly(w *world) *push {
	w.t.Helper()
	return w.push(w.A, "--auto-converge", "--bandwidth-limit", "6MB/s", "--max-downtime", "500ms", "web", w.tls(w.B))
}

// quota is the container's cpu quota in microseconds on a host, -1 for none, and whether its state says that it is slowed down.
func quota(w *world, h *lab.Host, id string) (quota string, slowed bool) {
	w.t.Helper()
	text, err := h.Run(w.ctx, "cat", "/run/migrate/"+id+"/state.json")
	if err != nil {
		w.t.Fatal(err)
	}
	var state struct {
		Slowed bool              `json:"slowed"`
		Paths  map[string]string `json:"cgroup_paths"`
	}
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		w.t.Fatal(err)
	}
	path := filepath.Join(state.Paths[""], "cpu.max")
	if cpu := state.Paths["cpu"]; cpu != "" { // cgroup v1
		path = filepath.Join(cpu, "cpu.cfs_quota_us")
	}
	text, err = h.Run(w.ctx, "cat", path)
	if err != nil {
		w.t.Fatal(err)
	}
	quota, _, _ = strings.Cut(strings.TrimSpace(text), " ")
	return strings.Replace(quota, "max", "-1", 1), state.Slowed
}

// braked waits until the container has less processor time.
func braked(w *world) {
	w.t.Helper()
	for range 600 {
		if q, slowed := quota(w, w.A, "web"); slowed && q != "-1" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	w.t.Fatal("it was never slowed down")
}

func TestContainerThatWritesTooFastIsSlowedDown(t *testing.T) {
	w := newWorld(t)
	p, c := hasty(w)
	braked(w)
	p.moved()
	t.Logf("away for %.0f ms, slowed down to %d %%", p.result.DowntimeMS, p.result.Slowed.CPU)
	if p.result.Slowed.CPU == 0 || p.result.Slowed.CPU > 80 || p.result.Slowed.MS <= 0 {
		t.Errorf("the result says %+v", p.result.Slowed)
	}
	if w.where("web") != w.B {
		t.Fatal("it did not move")
	}
	if q, slowed := quota(w, w.B, "web"); q != "-1" || slowed {
		t.Errorf("at the peer its quota is %s, slowed %v", q, slowed)
	}
	c.unharmed()
}

// Whatever ends a move, the container that runs on has all of its processor time.
func TestContainerThatStaysIsNotSlow(t *testing.T) {
	w := newWorld(t)
	p, c := hasty(w)
	braked(w)
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil { // called off
		t.Fatal(err)
	}
	p.failed(1, "kept", "")
	if q, slowed := quota(w, w.A, "web"); q != "-1" || slowed {
		t.Errorf("called off: its quota is %s, slowed %v", q, slowed)
	}
	p = pushSlowly(w)
	braked(w)
	signalAll(t, append(w.A.Keepers(), p.cmd.Process.Pid), syscall.SIGKILL)
	w.settled("web")
	if out, err := w.A.Run(w.ctx, "migrate", "resolve", "web"); err != nil {
		t.Fatalf("resolve: %v: %s", err, out)
	}
	if q, slowed := quota(w, w.A, "web"); q != "-1" || slowed {
		t.Errorf("resolved: its quota is %s, slowed %v", q, slowed)
	}
	c.unharmed()
}
