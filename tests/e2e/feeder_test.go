package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// A feeder that is killed while the container runs on half of its memory has a successor: nobody sees more than a pause.
func TestKilledFeederCostsNothing(t *testing.T) {
	setHugePages(t, 8)
	w := newWorld(t)
	w.run(w.A, "kinds", "workload", "kinds", "--megabytes", "8")
	c := w.checkWorkload()
	killed, at := 0, w.A
	for range 2 {
		to := w.other(at)
		p := w.push(at, "kinds", w.tls(to))
		if !p.until("restore") {
			t.Fatalf("push ended before its restore: %s", p.result.Error)
		}
		for deadline := time.Now().Add(5 * time.Second); killed < 3 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			killed += signalAll(t, to.Feeders(), syscall.SIGKILL)
		}
		p.moved()
		c.unharmed()
		at = to
	}
	if killed == 0 {
		t.Error("no feeder was killed")
	}
}

// The peer's keeper is killed in the moment in which the container is the peer's, frozen yet and without most of its memory, and
// the feeder with it: the push that is waiting for a word gets it from another keeper, which has made good for both.
func TestKeeperAndFeederKilledAsItRuns(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "web", "redis")
	c := w.increment()
	load(w, 100)
	before := debugDigest(w, w.A)
	p := w.push(w.A, "--mode", "stop-copy", "web", w.tls(w.B))
	if !p.until("resume") {
		t.Fatalf("push ended early: %s", p.result.Error)
	}
	for deadline := time.Now().Add(20 * time.Second); !recorded(t, w.B, "running"); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatal("the peer does not let it run")
		}
	}
	keepers := signalAll(t, w.B.Keepers(), syscall.SIGKILL)
	feeders := signalAll(t, w.B.Feeders(), syscall.SIGKILL)
	t.Logf("killed were %d keepers and %d feeders", keepers, feeders)
	began := time.Now()
	c.unharmed()
	t.Logf("it answers after %v", time.Since(began))
	p.moved()
	if now := w.where("web"); now != w.B {
		t.Fatalf("runs on %s", now.Name)
	}
	if after := debugDigest(w, w.B); after != before {
		t.Errorf("the data's digest was %s and is %s", before, after)
	}
	w.push(w.B, "web", w.tls(w.A)).moved()
	c.unharmed()
}

// recorded tells whether a host's journal of a move to it has a step.
func recorded(t *testing.T, h *lab.Host, step string) bool {
	t.Helper()
	paths, err := filepath.Glob(h.Path("/var/lib/migrate/journal/*.peer"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte(`"`+step+`"`)) {
			return true
		}
	}
	return false
}
