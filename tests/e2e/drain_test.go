package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// drainEvent is a line of a push of several.
type drainEvent struct {
	Event      string    `json:"event"`
	ID         string    `json:"id"`
	Phase      string    `json:"phase"`
	At         time.Time `json:"at"`
	Outcome    string    `json:"outcome"`
	DowntimeMS float64   `json:"downtime_ms"`
	Moved      int       `json:"moved"`
	Skipped    int       `json:"skipped"`
	Refused    int       `json:"refused"`
	Left       []struct {
		ID, Status string
	} `json:"left"`
}

// small starts containers that do nothing, each with an address.
func (w *world) small(h *lab.Host, ids ...string) {
	w.t.Helper()
	for i, id := range ids {
		if err := h.Bundle(w.ctx, "busybox", "/srv/bundles/"+id); err != nil {
			w.t.Fatal(err)
		}
		err := h.Start(w.ctx, "migrate", "run", "--detach", "--log-file", "/srv/"+id+".log", "--bundle", "/srv/bundles/"+id,
			"--network", fmt.Sprintf("bridge=br0,address=10.77.0.%d/24", 110+i), id)
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// drain runs a push of several and calls seen, which may be nil, with each event.
func (w *world) drain(h *lab.Host, code int, seen func(*exec.Cmd, drainEvent), args ...string) []drainEvent {
	w.t.Helper()
	cmd := h.Command(w.ctx, append([]string{"migrate", "push", "--json"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	var events []drainEvent
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var e drainEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			w.t.Fatalf("push prints %q: %v", lines.Text(), err)
		}
		if e.ID == "" && e.Event != "summary" {
			w.t.Errorf("of which container? %s", lines.Text())
		}
		events = append(events, e)
		if seen != nil {
			seen(cmd, e)
		}
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != code {
		w.t.Fatalf("push %v exits with %d, not %d: %+v", args, got, code, events)
	}
	if len(events) == 0 || events[len(events)-1].Event != "summary" {
		w.t.Fatalf("no summary at the end: %+v", events)
	}
	return events
}

// Several move at once, but no two stand still at once; what does not run is left and named.
func TestDrainOfAHost(t *testing.T) {
	w := newWorld(t)
	ids := []string{"d1", "d2", "d3", "d4"}
	w.small(w.A, append(ids, "paused")...)
	if _, err := w.A.Run(w.ctx, "migrate", "pause", "paused"); err != nil {
		t.Fatal(err)
	}
	events := w.drain(w.A, 0, nil, "--all", "--at-once", "4", w.ssh(w.B))
	last := events[len(events)-1]
	if last.Moved != 4 || len(last.Left) != 1 || last.Left[0].ID != "paused" {
		t.Errorf("summary %+v", last)
	}
	froze := map[string]time.Time{}
	var until time.Time
	for _, e := range events {
		switch {
		case e.Phase == "freeze":
			froze[e.ID] = e.At
			if e.At.Before(until) {
				t.Errorf("%s stops at %v, another one until %v", e.ID, e.At, until)
			}
		case e.Event == "result":
			until = froze[e.ID].Add(time.Duration(e.DowntimeMS) * time.Millisecond)
		}
	}
	for _, id := range ids {
		if w.where(id) != w.B {
			t.Errorf("%s is not on b", id)
		}
	}

	// One is in the way of d2: nothing moves, and then all but d2.
	w.small(w.A, "d2")
	events = w.drain(w.B, 4, nil, "d1", "d2", "d3", w.tls(w.A))
	if last = events[len(events)-1]; last.Moved != 0 || last.Refused != 1 || last.Skipped != 2 {
		t.Errorf("summary %+v", last)
	}
	events = w.drain(w.B, 4, nil, "--skip-refused", "d1", "d2", "d3", w.tls(w.A))
	if last = events[len(events)-1]; last.Moved != 2 || last.Refused != 1 {
		t.Errorf("summary %+v", last)
	}
	if w.status(w.B, "d2") != "running" || w.where("d1") != w.A || w.where("d3") != w.A {
		t.Error("d2 has moved, or others have not")
	}

	// Called off while the first one is prepared: it stays or has moved, and no other is begun.
	events = w.drain(w.A, 1, func(cmd *exec.Cmd, e drainEvent) {
		if e.Phase == "rootfs" {
			_ = cmd.Process.Signal(syscall.SIGINT)
		}
	}, "--at-once", "1", "d1", "d3", w.unix(w.B))
	if last = events[len(events)-1]; last.Skipped != 1 || w.where("d3") != w.A {
		t.Errorf("summary %+v, d3 is on %s", last, w.where("d3").Name)
	}
	w.where("d1")
}
