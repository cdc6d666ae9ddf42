package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/tests/lab"
)

// checked is what `migrate check --json` prints.
type checked struct {
	Movable     bool   `json:"movable"`
	Destination string `json:"destination"`
	Findings    []struct {
		Severity, Code, Host, Text, Cure string
		Pid                              int
	} `json:"findings"`
}

func (c *checked) codes(severity string) []string {
	var codes []string
	for _, f := range c.Findings {
		if f.Severity == severity {
			codes = append(codes, f.Code)
		}
	}
	return codes
}

// check runs it, and requires the exit code.
func (w *world) check(h *lab.Host, code int, args ...string) *checked {
	w.t.Helper()
	cmd := h.Command(w.ctx, append([]string{"migrate", "check", "--json"}, args...)...)
	out, err := cmd.Output()
	if got := cmd.ProcessState.ExitCode(); got != code {
		w.t.Errorf("check %v exits with %d, not %d: %v\n%s", args, got, code, err, out)
	}
	var c checked
	if err := json.Unmarshal(out, &c); err != nil {
		w.t.Fatalf("check prints %q: %v", out, err)
	}
	return &c
}

// A healthy pair has nothing to say, and the move that was asked about works.
func TestCheckHasNothingAgainstAHealthyMove(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "redis", "redis")
	c := w.increment()
	for _, args := range [][]string{nil, {"redis"}, {"redis", w.tls(w.B)}, {"redis", w.unix(w.B)}} {
		found := w.check(w.A, 0, args...)
		if len(found.codes("note")) != len(found.Findings) || !found.Movable {
			t.Errorf("check %v: %+v", args, found)
		}
	}
	for _, left := range []string{"/srv/bundles/redis", "/var/lib/migrate/journal", "/srv/redis.log"} {
		if out, err := w.B.Run(w.ctx, "ls", left); err == nil && strings.TrimSpace(out) != "" {
			t.Errorf("a check has left %s at the peer: %s", left, out)
		}
	}
	c.unharmed()
	w.push(w.A, "redis", w.tls(w.B)).moved()
	c.unharmed()
}

// What stands against a move is named by check and by push alike, that of both hosts at once, and the container runs on.
func TestCheckAndPushNameEveryBlocker(t *testing.T) {
	w := newWorld(t)
	for _, h := range []*lab.Host{w.A, w.B} {
		if err := h.Bundle(w.ctx, "workload", "/srv/bundles/tree", "tree"); err != nil {
			t.Fatal(err)
		}
		// Its output goes to a file that is in none of its mounts.
		run := "exec migrate run --detach --bundle /srv/bundles/tree --network bridge=br0,address=$0/24 tree </dev/null >/srv/out 2>&1"
		address := containerIP
		if h == w.B {
			address = "10.77.0.101"
		}
		if err := h.Start(w.ctx, "sh", "-c", run, address); err != nil {
			t.Fatal(err)
		}
	}
	c := w.checkWorkload()
	want := []string{"id-taken", "outside-file"}
	if codes := w.check(w.A, 4, "tree").codes("blocker"); !slices.Contains(codes, "outside-file") || slices.Contains(codes, "id-taken") {
		t.Errorf("the container alone: %v", codes)
	}
	found := w.check(w.A, 4, "tree", w.tls(w.B))
	for _, code := range want {
		if !slices.Contains(found.codes("blocker"), code) {
			t.Errorf("check does not say %s: %+v", code, found)
		}
	}
	p := w.push(w.A, "tree", w.tls(w.B))
	p.failed(4, "refused", "already exists")
	if !strings.Contains(p.result.Error, "outside of the container's mounts") {
		t.Errorf("push says %q", p.result.Error)
	}
	c.unharmed()
	if now := w.status(w.A, "tree"); now != "running" {
		t.Errorf("the container is %s", now)
	}
}
