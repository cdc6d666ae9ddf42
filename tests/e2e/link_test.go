package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// The cable between the hosts is pulled at any moment, and put back: one host runs the container, and push said the truth. Only
// where nobody could know, exit code 3, does it take `migrate resolve`.
func TestCutLinkLeavesOneContainer(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "tree", "workload", "tree")
	c := w.checkWorkload()
	at := w.A
	for _, phase := range phases {
		t.Run(phase, func(t *testing.T) {
			w.t, c.t = t, t
			to := w.other(at)
			p := w.push(at, "--retry", "2s", "tree", w.tls(to))
			if !p.until(phase) {
				at = w.where("tree") // a phase that this move did not have
				return
			}
			w.cable(to, "down")
			time.Sleep(500 * time.Millisecond)
			w.cable(to, "up")
			code := p.wait()
			if code == 3 {
				if _, err := at.Run(w.ctx, "migrate", "resolve", "tree"); err != nil {
					t.Errorf("resolve: %v", err)
				}
			}
			now := w.where("tree")
			if moved := now != at; code != 3 && moved != (code == 0) {
				t.Errorf("push exits with %d (%s), and the container runs on %s", code, p.result.Error, now.Name)
			}
			at = now
			c.unharmed()
		})
	}
}

// A link that stays away in the last step: push ends with 3 and the source stays frozen, and resolve ends it once the peer can
// be asked again.
func TestOutcomeUnknownIsResolved(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "tree", "workload", "tree")
	c := w.checkWorkload()
	p := w.push(w.A, "--retry", "1s", "tree", w.tls(w.B))
	if !p.until("resume") {
		t.Fatalf("push ended early: %s", p.result.Error)
	}
	w.cable(w.B, "down")
	code := p.wait()
	if code == 3 {
		if status := w.status(w.A, "tree"); status == "running" {
			t.Errorf("the source is %q while nobody knows the outcome", status)
		}
		_, err := w.A.Run(w.ctx, "migrate", "resolve", "--retry", "1s", "tree")
		if lab.ExitCode(err) != 3 {
			t.Errorf("resolve without a link: %v", err)
		}
	} else if code != 0 { // DONE may have been quicker than the scissors
		t.Errorf("push exits with %d: %s", code, p.result.Error)
	}
	w.cable(w.B, "up")
	if code == 3 {
		if out, err := w.A.Run(w.ctx, "migrate", "resolve", "tree"); err != nil {
			t.Errorf("resolve: %s %v", out, err)
		}
	}
	w.where("tree")
	c.unharmed()
}

// serve is only a pipe: when it dies in the middle of a move, the keepers on both sides end it one way or the other.
func TestKilledServeLeavesOneContainer(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "tree", "workload", "tree")
	c := w.checkWorkload()
	at := w.A
	for _, phase := range []string{"rootfs", "dump", "transfer", "restore", "resume"} {
		t.Run(phase, func(t *testing.T) {
			w.t, c.t = t, t
			to := w.other(at)
			address := "tls://" + to.IP + ":7450"
			server, err := to.Serve(w.ctx, address)
			if err != nil {
				t.Fatal(err)
			}
			p := w.push(at, "--retry", "2s", "tree", address)
			if p.until(phase) {
				_ = server.Cmd.Process.Signal(syscall.SIGKILL)
			}
			server.Stop()
			again, err := to.Serve(w.ctx, address)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Stop()
			if code := p.wait(); code == 3 {
				if _, err := at.Run(w.ctx, "migrate", "resolve", "tree"); err != nil {
					t.Errorf("resolve: %v", err)
				}
			}
			at = w.where("tree")
			c.unharmed()
		})
	}
}

// cable pulls a host's cable out of the switch, or plugs it in.
func (w *world) cable(h *lab.Host, state string) {
	w.t.Helper()
	if _, err := w.Lan.Run(w.ctx, "ip", "link", "set", "dev", strings.TrimPrefix(h.Name, w.Name+"-"), state); err != nil {
		w.t.Fatal(err)
	}
}
