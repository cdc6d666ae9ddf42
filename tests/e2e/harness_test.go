// Package e2e moves real containers between the lab's hosts: real CRIU, real redis, real faults.
//
// Every test has a client that holds one connection and can tell a lost, repeated or reordered answer. What a test says of a
// move always includes that: the client's connection lives, and exactly one host runs the container.
package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
	"github.com/livemigrate/migrate/tests/lab/labtest"
)

const containerIP = "10.77.0.100"

// told is how much of the end of a log a failed test shows.
const told = 40000

// world is a lab with a peer's side listening on both hosts, over TLS and, on a socket that both see, unix.
type world struct {
	*lab.Lab
	t   *testing.T
	ctx context.Context
}

// newWorld makes it; everything is gone when the test ends.
func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldFor(t, 3*time.Minute)
}

// newWorldFor makes one in which everything may take so long.
func newWorldFor(t *testing.T, limit time.Duration) *world {
	t.Helper()
	ctx, l := labtest.Up(t, "e", limit)
	w := &world{Lab: l, t: t, ctx: ctx}
	t.Cleanup(func() {
		if t.Failed() {
			w.tellLogs()
		}
	})
	w.serve(l.A)
	w.serve(l.B)
	return w
}

// serve listens on the host, both ways.
func (w *world) serve(h *lab.Host, flags ...string) {
	w.t.Helper()
	for _, address := range []string{w.tls(h), w.unix(h)} {
		server, err := h.Serve(w.ctx, address, flags...)
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(server.Stop)
	}
}

func (w *world) tls(h *lab.Host) string { return "tls://" + h.IP + ":7440" }
func (w *world) ssh(h *lab.Host) string { return "ssh://root@" + h.IP }
func (w *world) unix(h *lab.Host) string {
	return "unix://" + filepath.Join("/var/lib/migrate-lab", w.Name, h.Name+".sock")
}

// tellLogs shows what the hosts' own logs say, for a test that failed.
func (w *world) tellLogs() {
	for _, h := range []*lab.Host{w.A, w.B} {
		logs, _ := filepath.Glob(h.Path("/srv/*.log"))
		keepers, _ := filepath.Glob(h.Path("/var/lib/migrate/log/*.log"))
		programs, _ := filepath.Glob(h.Path("/var/lib/migrate/log/*/*.log"))
		for _, log := range slices.Concat(logs, keepers, programs) {
			if text, err := os.ReadFile(log); err == nil && len(text) > 0 {
				w.t.Logf("%s %s:\n%s", h.Name, filepath.Base(log), tail(text))
			}
		}
	}
}

func tail(text []byte) []byte { return text[max(0, len(text)-told):] }

// run starts a container of a bundle kind on the host, with an address on the lab's network.
func (w *world) run(h *lab.Host, id, kind string, args ...string) {
	w.t.Helper()
	if err := h.Bundle(w.ctx, kind, "/srv/bundles/"+id, args...); err != nil {
		w.t.Fatal(err)
	}
	w.start(h, id)
}

// start starts the container whose bundle is laid, likewise.
func (w *world) start(h *lab.Host, id string) {
	w.t.Helper()
	err := h.Start(w.ctx, "migrate", "run", "--detach", "--log-file", "/srv/"+id+".log", "--bundle", "/srv/bundles/"+id,
		"--network", "bridge=br0,address="+containerIP+"/24", id)
	if err != nil {
		w.t.Fatal(err)
	}
}

// status is the container's status on a host, "" when the host has none.
func (w *world) status(h *lab.Host, id string) string {
	out, err := h.Run(w.ctx, "migrate", "state", id)
	if err != nil {
		return ""
	}
	var state struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal([]byte(out), &state); err != nil {
		w.t.Errorf("read state %q: %v", out, err)
	}
	return state.Status
}

// where returns the one host that runs the container, giving both sides a moment to finish what they are at.
func (w *world) where(id string) *lab.Host {
	w.t.Helper()
	var onA, onB string
	for range 150 {
		onA, onB = w.status(w.A, id), w.status(w.B, id)
		switch {
		case onA == "running" && onB == "running":
			w.t.Fatalf("%s runs on both hosts", id)
		case onA == "running" && onB == "":
			return w.A
		case onB == "running" && onA == "":
			return w.B
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Fatalf("%s is %q on a and %q on b; ended on a: %s, on b: %s", id, onA, onB, w.exit(w.A, id), w.exit(w.B, id))
	return nil
}

// exit is what a host's monitor has kept of the container's end, if anything.
func (w *world) exit(h *lab.Host, id string) string {
	text, err := h.Run(w.ctx, "cat", "/run/migrate/"+id+"/exit.json")
	if err != nil {
		return "unknown"
	}
	return text
}

func (w *world) other(h *lab.Host) *lab.Host {
	if h == w.A {
		return w.B
	}
	return w.A
}

// client is a conversation over one connection, from the client's host.
type client struct {
	*lab.Client
	t *testing.T
}

// checkWorkload converses with tests/workload, which checks itself at every question.
func (w *world) checkWorkload() *client { return w.converse(":7000", "check", "ok %d") }

// increment converses with redis.
func (w *world) increment() *client { return w.converse(":6379", "INCR counter", ":%d") }

func (w *world) converse(port, question, answer string) *client {
	w.t.Helper()
	conversation, err := w.Converse(w.ctx, containerIP+port, question, answer)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(conversation.Close)
	c := &client{conversation, w.t}
	c.unharmed()
	return c
}

// unharmed: the conversation goes on, over the same connection.
func (c *client) unharmed() {
	c.t.Helper()
	if err := c.Unharmed(20 * time.Second); err != nil {
		c.t.Fatal(err)
	}
}

// push is a `migrate push --json`.
type push struct {
	*lab.Push
	t      *testing.T
	cmd    *exec.Cmd
	result *lab.PushResult
}

// push starts a move. Flags may stand before id and peer.
func (w *world) push(from *lab.Host, args ...string) *push {
	w.t.Helper()
	started, err := from.Push(w.ctx, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	p := &push{started, w.t, started.Cmd, &started.Result}
	w.t.Cleanup(func() {
		p.Kill()
		if p.t.Failed() {
			p.t.Logf("push to %s ended with %v, %+v\n%s", args[len(args)-1], p.cmd.ProcessState, *p.result, p.Said())
		}
	})
	return p
}

// until waits for a phase to begin; false when the move ended without it.
func (p *push) until(phase string) bool { return p.Until(phase) }

// wait returns the exit code.
func (p *push) wait() int {
	p.t.Helper()
	code, err := p.Wait(time.Minute)
	if err != nil {
		p.t.Fatal(err)
	}
	return code
}

// moved requires that it ended well.
func (p *push) moved() {
	p.t.Helper()
	if code := p.wait(); code != 0 || p.result.Outcome != "moved" {
		p.t.Fatalf("push exits with %d, outcome %q: %s\n%s", code, p.result.Outcome, p.result.Error, p.Said())
	}
}

// failed requires an exit code, an outcome, and one clear line.
func (p *push) failed(code int, outcome, says string) {
	p.t.Helper()
	if got := p.wait(); got != code || p.result.Outcome != outcome {
		p.t.Errorf("push exits with %d, outcome %q; want %d, %q (%s)", got, p.result.Outcome, code, outcome, p.result.Error)
	}
	if !strings.Contains(p.result.Error, says) || strings.Contains(p.result.Error, "\n") {
		p.t.Errorf("push says %q; want one line with %q", p.result.Error, says)
	}
}

// signalAll tells how many it has reached: one that is to be killed may have ended by itself since it was looked for.
func signalAll(t *testing.T, pids []int, signal syscall.Signal) (reached int) {
	t.Helper()
	for _, pid := range pids {
		switch err := syscall.Kill(pid, signal); {
		case err == nil:
			reached++
		case signal != syscall.SIGKILL || !errors.Is(err, syscall.ESRCH):
			t.Errorf("signal %d to %d: %v", signal, pid, err)
		}
	}
	return reached
}
