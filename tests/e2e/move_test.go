package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// There and back again, over every kind of link, with a client that never reconnects.
func TestRedisMovesUnderLoad(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "web", "redis")
	c := w.increment()
	load(w, 40)
	before := debugDigest(w, w.A)
	at := w.A
	for _, address := range []func(*lab.Host) string{w.ssh, w.tls, w.unix, w.tls} {
		to := w.other(at)
		w.push(at, "web", address(to)).moved()
		if now := w.where("web"); now != to {
			t.Fatalf("runs on %s after a move to %s", now.Name, to.Name)
		}
		c.unharmed()
		at = to
	}
	if after := debugDigest(w, at); after != before {
		t.Errorf("the data's digest was %s and is %s", before, after)
	}
}

// load puts some megabytes of values into redis.
func load(w *world, mb int) {
	w.t.Helper()
	script := `for i in $(seq "$0"); do head -c 1048576 /dev/urandom | redis-cli -x set "value:$i"; done`
	if _, err := w.A.Run(w.ctx, "migrate", "exec", "web", "sh", "-c", script, itoa(mb)); err != nil {
		w.t.Fatal(err)
	}
}

// debugDigest is redis' own digest of the values; the counter changes all the time.
func debugDigest(w *world, h *lab.Host) string {
	w.t.Helper()
	out, err := h.Run(w.ctx, "migrate", "exec", "web", "sh", "-c", "redis-cli --raw debug digest-value $(redis-cli --raw keys 'value:*' | sort)")
	if err != nil || strings.Contains(out, "ERR") || len(out) < 41 {
		w.t.Fatalf("take digest: %q, %v", out, err)
	}
	return out
}

// Processes, threads, pipes, unix sockets, shared memory and a pty: each answers for itself before and after.
func TestProcessTreeMoves(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "tree", "workload", "tree")
	c := w.checkWorkload()
	w.push(w.A, "tree", w.tls(w.B)).moved()
	c.unharmed()
	w.push(w.B, "tree", w.unix(w.A)).moved()
	c.unharmed()
	if out, err := w.A.Run(w.ctx, "migrate", "ps", "tree"); err != nil || strings.Count(out, "member") != 6 {
		t.Errorf("ps: %v\n%s", err, out)
	}
}

// A process that a signal has stopped is one still, on the way and at the peer. No tracer can seize it in cgroup v1's freezer.
func TestStoppedProcessMoves(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "stopped", "busybox", "sh", "-c", "sleep 1000 & kill -STOP $!; echo $! >/stopped; while sleep 1; do :; done")
	state := func(h *lab.Host) (said string) {
		for range 100 { // the file takes a moment
			said, _ = h.Run(w.ctx, "migrate", "exec", "stopped", "sh", "-c", "grep State /proc/$(cat /stopped)/status")
			if strings.Contains(said, "stopped") {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		return said
	}
	if said := state(w.A); !strings.Contains(said, "stopped") {
		t.Fatalf("before the move: %s", said)
	}
	p := w.push(w.A, "--mode", "stop-copy", "stopped", w.tls(w.B))
	p.moved()
	if said := state(w.B); !strings.Contains(said, "stopped") {
		t.Errorf("after the move: %s", said)
	}
	t.Logf("away for %.0f ms", p.result.DowntimeMS)
}

// What the container writes into its rootfs until the last moment is there after the move, and nothing else.
func TestFilesWrittenDuringTheMoveArrive(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "files", "workload", "files")
	c := w.checkWorkload()
	at := w.A
	for range 4 {
		to := w.other(at)
		w.push(at, "files", w.tls(to)).moved()
		c.unharmed()
		for _, h := range []*lab.Host{w.A, w.B} { // the file of two names had a third in the stop
			if out, err := h.Run(w.ctx, "find", "/srv/bundles", "-name", "link_remap.*"); err != nil || out != "" {
				t.Errorf("left on %s: %s, %v", h.Name, out, err)
			}
		}
		at = to
		time.Sleep(200 * time.Millisecond)
	}
}

// Memory that changes at every moment of the move, checked byte by byte.
func TestMemoryRewrittenDuringTheMoveArrives(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "memory", "workload", "memory", "--rate", "10000", "128")
	c := w.checkWorkload()
	w.push(w.A, "memory", w.tls(w.B)).moved()
	c.unharmed()
	w.push(w.B, "--lanes", "4", "memory", w.tls(w.A)).moved()
	c.unharmed()
}

// push's flags, as an operator uses them.
func TestPushFlags(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "memory", "workload", "memory", "32")
	c := w.checkWorkload()

	p := w.push(w.A, "--keep", "--report", "/srv/story.json", "memory", w.tls(w.B))
	p.moved()
	c.unharmed()
	var story struct {
		Outcome string             `json:"outcome"`
		Phases  map[string]float64 `json:"phases"`
	}
	text, err := os.ReadFile(w.A.Path("/srv/story.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &story); err != nil || story.Outcome != "moved" || len(story.Phases) != len(phases) {
		t.Errorf("the report says %s (%v)", text, err)
	}
	if status := w.status(w.A, "memory"); status != "stopped" {
		t.Errorf("with --keep the source is %q", status)
	}
	if _, err := w.A.Run(w.ctx, "migrate", "delete", "memory"); err != nil {
		t.Error(err)
	}

	const limit = 32 << 20
	began := time.Now()
	p = w.push(w.B, "--bandwidth-limit", "32MiB/s", "memory", w.tls(w.A))
	p.moved()
	c.unharmed()
	if took, least := time.Since(began), time.Duration(p.result.BytesSent)*time.Second/limit*8/10; took < least {
		t.Errorf("%d bytes took %s, at 32 MiB/s it is %s at least", p.result.BytesSent, took, least)
	}
}
