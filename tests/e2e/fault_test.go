package e2e

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// phases of a move, in which a user may lose patience or a process its life.
var phases = []string{"preflight", "rootfs", "precopy", "freeze", "dump", "transfer", "restore", "resume"}

// Ctrl-C at any moment: the container runs on one host, its client never notices, and the exit code says which.
func TestInterruptedPushLeavesOneContainer(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "tree", "workload", "tree")
	c := w.checkWorkload()
	at := w.A
	for _, phase := range phases {
		t.Run(phase, func(t *testing.T) {
			w.t = t
			p := w.push(at, "tree", w.tls(w.other(at)))
			if p.until(phase) {
				signalAll(t, []int{p.cmd.Process.Pid}, syscall.SIGINT)
			}
			code := p.wait()
			now := w.where("tree")
			switch {
			case code == 0 && now != at, (code == 1 || code == 4) && now == at:
			default:
				t.Errorf("push exits with %d (%s), and the container moved from %s to %s", code, p.result.Error, at.Name, now.Name)
			}
			at = now
			c.unharmed()
		})
	}
	w.t = t
}

// kill -9 of push at any moment: the keeper ends the move one way or the other.
func TestKilledPushLeavesOneContainer(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "tree", "workload", "tree")
	c := w.checkWorkload()
	at := w.A
	for _, phase := range phases {
		t.Run(phase, func(t *testing.T) {
			w.t = t
			p := w.push(at, "tree", w.tls(w.other(at)))
			if p.until(phase) {
				_ = p.cmd.Process.Kill()
			}
			p.wait()
			// Whichever way it goes, the keepers are done before the next move begins.
			w.settled("tree")
			at = w.where("tree")
			c.unharmed()
		})
	}
	w.t = t
}

// kill -9 of the source's keeper at any moment: push has the move ended. CRIU may be at work then, and freeze what runs again.
func TestKilledKeeperOfTheSourceLeavesOneContainer(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "tree", "workload", "tree")
	c := w.checkWorkload()
	at := w.A
	for _, phase := range []string{"precopy", "freeze", "dump", "transfer", "resume"} {
		t.Run(phase, func(t *testing.T) {
			w.t = t
			p := w.push(at, "tree", w.tls(w.other(at)))
			if p.until(phase) {
				signalAll(t, at.Keepers(), syscall.SIGKILL)
			}
			p.wait()
			w.settled("tree")
			at = w.where("tree")
			c.unharmed()
		})
	}
	w.t = t
}

// Ctrl-Z while the container is frozen: the move goes on, and fg shows how it ended. Neither host is left with its files.
func TestSuspendedPushMoves(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "tree", "workload", "tree")
	c := w.checkWorkload()
	p := w.push(w.A, "tree", w.tls(w.B))
	if !p.until("freeze") {
		t.Fatalf("push ended before the freeze: %s", p.result.Error)
	}
	signalAll(t, []int{p.cmd.Process.Pid}, syscall.SIGSTOP)
	if now := w.where("tree"); now != w.B {
		t.Errorf("runs on %s", now.Name)
	}
	c.unharmed()
	signalAll(t, []int{p.cmd.Process.Pid}, syscall.SIGCONT)
	p.moved()
	w.settled("tree")
	for _, h := range []*lab.Host{w.A, w.B} {
		left, err := h.Run(w.ctx, "sh", "-c", "cd /run/migrate-handover; ls -d *.lock *.sock* migrate-images-* /dev/shm/migrate-images-* 2>/dev/null || true")
		if err != nil || strings.TrimSpace(left) != "" {
			t.Errorf("%s: left behind: %s %v", h.Name, left, err)
		}
	}
}

// settled waits until no keeper works on the container any more: a move of it is refused or possible, not under way.
func (w *world) settled(id string) {
	w.t.Helper()
	for range 300 { // the peer's waits 20 s for lanes that a killed push had yet to open
		onA, onB := w.status(w.A, id), w.status(w.B, id)
		if (onA == "running") != (onB == "running") && (onA == "" || onB == "") && w.keepers() == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, h := range []*lab.Host{w.A, w.B} {
		logs, _ := h.Run(w.ctx, "sh", "-c", "ps ax | grep keeper; tail -n 5 /var/lib/migrate/log/*.log")
		w.t.Logf("%s: %q\n%s", h.Name, w.status(h, id), logs)
	}
	w.t.Fatalf("%s: a keeper still works on it", id)
}

// keepers counts the keepers that hold a move on either host.
func (w *world) keepers() int { return len(w.A.Keepers()) + len(w.B.Keepers()) }

// The restore fails on the peer: the source runs on, its client unharmed, and push says why.
func TestSourceRunsOnWhenPeerRestoreFails(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "tree", "workload", "tree")
	c := w.checkWorkload()
	// A CRIU that may not touch the network cannot rebuild the client's connection. Everything else it can.
	server := w.serveWithCRIU(w.B, `exec setpriv --bounding-set=-net_admin `+quotedCRIU()+` "$@"`)
	w.push(w.A, "tree", server).failed(1, "kept", "restore")
	if now := w.where("tree"); now != w.A {
		t.Errorf("runs on %s", now.Name)
	}
	c.unharmed()
	// And nothing is left that would keep it from moving.
	w.push(w.A, "tree", w.tls(w.B)).moved()
	c.unharmed()
}

// CRIU dies with the container in its hands, in its post-dump notification. The cgroup still holds every task: when the peer
// can restore, the move goes on; when it cannot, sockets are given back as they were, and the source runs on.
func TestCRIUKilledWhileHoldingLosesNothing(t *testing.T) {
	for _, test := range []struct {
		name         string
		peerRestores bool
	}{{"the peer restores", true}, {"the peer fails too", false}} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.run(w.A, "web", "redis")
			c := w.increment()
			p := w.push(w.A, "web", w.tls(w.B))
			if !p.until("precopy") {
				t.Fatalf("push ended before its rounds: %s", p.result.Error)
			}
			// The peer's CRIU, which is there already, stands still, so the source's waits in its notification for as long as
			// this test likes.
			peer, err := w.B.AwaitCRIUs()
			if err != nil {
				t.Fatal(err)
			}
			signalAll(t, peer, syscall.SIGSTOP)
			if !p.until("restore") {
				t.Fatalf("push ended before the restore: %s", p.result.Error)
			}
			source := w.A.CRIUs()
			if len(source) == 0 {
				t.Fatal("no CRIU holds the container")
			}
			signalAll(t, source, syscall.SIGKILL)
			time.Sleep(100 * time.Millisecond)
			if test.peerRestores {
				signalAll(t, peer, syscall.SIGCONT)
				p.moved()
			} else {
				signalAll(t, peer, syscall.SIGKILL)
				p.failed(1, "kept", "restore")
			}
			at := w.where("web")
			if moved := at == w.B; moved != test.peerRestores {
				t.Errorf("runs on %s", at.Name)
			}
			c.unharmed()
			w.push(at, "web", w.tls(w.other(at))).moved()
			c.unharmed()
		})
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
