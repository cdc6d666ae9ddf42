package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// Memory follows a container that runs already: the client's connection lives, every value is what it was, and the source
// has nothing left when the last page has come.
func TestMemoryFollows(t *testing.T) {
	for _, mode := range []string{"post-copy", "hybrid"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			w.run(w.A, "web", "redis")
			c := w.increment()
			load(w, 100)
			before := debugDigest(w, w.A)
			at := w.A
			for range 4 {
				to := w.other(at)
				p := w.push(at, "--mode", mode, "web", w.tls(to))
				p.moved()
				t.Logf("away for %.0f ms, all there after %.0f ms, %d MB", p.result.DowntimeMS, p.result.TotalMS, p.result.BytesSent>>20)
				if now := w.where("web"); now != to {
					t.Fatalf("runs on %s after a move to %s", now.Name, to.Name)
				}
				if p.result.Mode != mode {
					t.Errorf("the mode came out as %q", p.result.Mode)
				}
				c.unharmed()
				at = to
			}
			if after := debugDigest(w, at); after != before {
				t.Errorf("the data's digest was %s and is %s", before, after)
			}
		})
	}
}

// following is a move to B of which only the memory is left, and that takes a while.
type following struct {
	*world
	c      *client
	p      *push
	server *lab.Server
	before string
}

const followAddress = ":7450"

func newFollowing(t *testing.T) *following {
	t.Helper()
	f := &following{world: newWorldFor(t, 4*time.Minute)}
	f.run(f.A, "web", "redis")
	f.c = f.increment()
	load(f.world, 100)
	f.before = debugDigest(f.world, f.A)
	f.serve()
	f.p = f.push(f.A, "--mode", "post-copy", "--bandwidth-limit", "8MiB/s", "web", "tls://"+f.B.IP+followAddress)
	if !f.p.until("follow") {
		t.Fatalf("push ended early: %s", f.p.result.Error)
	}
	time.Sleep(time.Second)
	return f
}

// serve is a peer's side of the move's own, to be killed.
func (f *following) serve() {
	f.t.Helper()
	var err error
	if f.server, err = f.B.Serve(f.ctx, "tls://"+f.B.IP+followAddress); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(f.server.Stop)
}

// arrived requires that the move ends well, and nothing was lost.
func (f *following) arrived() {
	f.t.Helper()
	f.p.moved()
	if now := f.where("web"); now != f.B {
		f.t.Fatalf("runs on %s", now.Name)
	}
	f.c.unharmed()
	if after := debugDigest(f.world, f.B); after != f.before {
		f.t.Errorf("the data's digest was %s and is %s", f.before, after)
	}
}

// stillThere: the source holds the memory, and runs nothing.
func (f *following) stillThere() {
	f.t.Helper()
	if status := f.status(f.A, "web"); status != "paused" {
		f.t.Errorf("the source is %q while memory is missing at the peer", status)
	}
}

// A link that is away for longer than anybody takes for a hiccup: what waits for memory waits, and then goes on.
func TestCutLinkWhileMemoryFollows(t *testing.T) {
	f := newFollowing(t)
	f.stillThere()
	f.cable(f.B, "down")
	time.Sleep(13 * time.Second)
	f.stillThere()
	f.cable(f.B, "up")
	f.arrived()
}

// The process that the link goes through is killed, again and again.
func TestKilledServeWhileMemoryFollows(t *testing.T) {
	f := newFollowing(t)
	for range 3 {
		_ = f.server.Cmd.Process.Signal(syscall.SIGKILL)
		f.server.Stop()
		f.stillThere()
		f.serve()
		time.Sleep(1500 * time.Millisecond)
		f.c.unharmed()
	}
	f.arrived()
}

// So is the process that puts pages in their places.
func TestKilledFeederWhileMemoryFollows(t *testing.T) {
	f := newFollowing(t)
	for range 3 {
		signalAll(t, f.B.Feeders(), syscall.SIGKILL)
		time.Sleep(500 * time.Millisecond)
		f.c.unharmed()
	}
	f.arrived()
}

// The peer's keeper is killed, then the next one together with the feeder: what waits for memory waits, until the source has
// asked again, and another keeper takes over what the holder has.
func TestKilledPeerWhileMemoryFollows(t *testing.T) {
	f := newFollowing(t)
	killKeepers(t, f.B)
	f.stillThere()
	time.Sleep(2 * time.Second)
	f.c.unharmed()
	signalAll(t, append(f.B.Keepers(), f.B.Feeders()...), syscall.SIGKILL)
	f.stillThere()
	f.arrived()
}

// The container is deleted at the peer while it waits for memory there: the frozen source is the only whole copy, and goes for a
// user who says so.
func TestDeletedWhileMemoryFollows(t *testing.T) {
	f := newFollowing(t)
	if _, err := f.B.Run(f.ctx, "migrate", "delete", "--force", "web"); err != nil {
		t.Errorf("delete at the peer: %v", err)
	}
	f.p.failed(3, "unknown", "migrate resolve --force-source web")
	f.stillThere()
	if _, err := f.A.Run(f.ctx, "migrate", "resolve", "--retry", "1s", "web"); lab.ExitCode(err) != 3 {
		t.Errorf("resolve: %v", err)
	}
	f.stillThere()
	if _, err := f.A.Run(f.ctx, "migrate", "resolve", "--force-source", "web"); err != nil {
		t.Errorf("resolve: %v", err)
	}
	if now := f.where("web"); now != f.A {
		t.Fatalf("runs on %s", now.Name)
	}
	if after := debugDigest(f.world, f.A); after != f.before {
		t.Errorf("the data's digest was %s and is %s", f.before, after)
	}
	f.push(f.A, "--mode", "post-copy", "web", f.tls(f.B)).moved()
	if now := f.where("web"); now != f.B {
		t.Errorf("runs on %s after another move", now.Name)
	}
}

// The source's keeper is killed: push goes on in its place.
func TestKilledSourceWhileMemoryFollows(t *testing.T) {
	f := newFollowing(t)
	killKeepers(t, f.A)
	f.arrived()
}

// So is push: what is frozen stays, and resolve goes on sending.
func TestResolveWhileMemoryFollows(t *testing.T) {
	f := newFollowing(t)
	_ = f.p.cmd.Process.Kill()
	f.p.wait()
	killKeepers(t, f.A)
	time.Sleep(time.Second)
	f.stillThere()
	if out, err := f.A.Run(f.ctx, "migrate", "resolve", "web"); err != nil {
		t.Fatalf("resolve: %s %v", out, err)
	}
	if now := f.where("web"); now != f.B {
		t.Fatalf("runs on %s", now.Name)
	}
	f.c.unharmed()
	if after := debugDigest(f.world, f.B); after != f.before {
		t.Errorf("the data's digest was %s and is %s", f.before, after)
	}
}

// killKeepers kills those of a host that are at work.
func killKeepers(t *testing.T, h *lab.Host) {
	t.Helper()
	pids := h.Keepers()
	if len(pids) == 0 {
		t.Fatalf("%s has no keeper", h.Name)
	}
	signalAll(t, pids, syscall.SIGKILL)
}
