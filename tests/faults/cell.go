package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// cell is one step of a move with one fault.
type cell struct {
	world *world
	mode  string
	step  step
	fault fault

	client *lab.Client
	push   *lab.Push
	beats  *beats
}

// verdict is how a cell ended.
type verdict struct {
	kind  kind
	why   string // of what is wrong, or not applicable
	at    string // where the container runs: "source" or "peer"
	ended string // what it took: "", "resolve" or "force"
	took  time.Duration
}

type kind int

const (
	fine kind = iota
	wrong
	none // not applicable
)

func (v verdict) String() string {
	switch {
	case v.kind == wrong:
		return "WRONG: " + v.why
	case v.kind == none:
		return "n.a.: " + v.why
	case v.at == "":
		return "lost"
	case v.ended != "":
		return v.at + ", by " + v.ended
	default:
		return v.at
	}
}

// wrongf is what no fault excuses.
func wrongf(format string, args ...any) *verdict {
	return &verdict{kind: wrong, why: fmt.Sprintf(format, args...)}
}

const (
	hitPatience    = 80 * time.Second // until a move comes to a step, or ends
	latePatience   = 3 * time.Second  // until it does when push has ended
	pushPatience   = 90 * time.Second // until push ends
	clientPatience = 15 * time.Second // until a client that was kept waiting has answers again
	patience       = 45 * time.Second // until what has ended is gone: keepers wait up to 30 s for a session
)

// run makes the move. An error is of the test's own.
func (c *cell) run(ctx context.Context) (v *verdict, err error) {
	began := time.Now()
	defer func() {
		if v != nil {
			v.took = time.Since(began)
		}
	}()
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	defer c.end()
	happened, err := c.strike(ctx)
	if err != nil {
		return nil, err
	}
	code, err := c.push.Wait(pushPatience)
	if err != nil {
		return wrongf("%v", err), nil
	}
	if happened != nil {
		if v := c.harmless(code); v != nil {
			return v, nil
		}
		return c.clear(ctx, happened), nil
	}
	v = c.judge(ctx, code)
	if v.kind == wrong {
		return v, nil
	}
	return c.clear(ctx, v), nil
}

// begin starts a container on A, a client of it, and the move.
func (c *cell) begin(ctx context.Context) (err error) {
	w := c.world
	if err := w.serve(ctx); err != nil {
		return err
	}
	if err := w.run(ctx); err != nil {
		return err
	}
	if c.client, err = w.Converse(ctx, containerIP+":7000", "write", "ok %d"); err != nil {
		return err
	}
	if err := c.client.Unharmed(clientPatience); err != nil {
		return err
	}
	if err := w.arm(c.step.point, "stop"); err != nil {
		return err
	}
	c.beats = watchBeats(w.A, w.B)
	c.push, err = w.A.Push(ctx, "--retry", "3s", "--mode", c.mode, containerID, w.peer(c.fault.ssh))
	return err
}

func (c *cell) relay() *relay {
	if c.fault.ssh {
		return c.world.ssh
	}
	return c.world.tls
}

// strike lets the fault happen when the move stands at the step. The verdict is why it could not.
func (c *cell) strike(ctx context.Context) (*verdict, error) {
	w := c.world
	if !c.comes() {
		return &verdict{kind: none, why: "no such step"}, w.release()
	}
	err := c.fault.do(ctx, c)
	if errors.Is(err, errNothing) {
		return &verdict{kind: none, why: errNothing.Error()}, w.release()
	}
	if err := errors.Join(err, w.release()); err != nil {
		return nil, fmt.Errorf("make the fault: %w", err)
	}
	if c.fault.undo == nil {
		return nil, nil
	}
	select {
	case <-time.After(c.fault.lasts):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := c.fault.undo(ctx, c); err != nil {
		return nil, fmt.Errorf("end the fault: %w", err)
	}
	return nil, nil
}

// comes waits for the move to come to the step. The peer goes on for a moment after push has ended.
func (c *cell) comes() bool {
	ended := c.push.Ended()
	for deadline := time.Now().Add(hitPatience); time.Now().Before(deadline); {
		if c.world.hit(c.step.point) {
			return true
		}
		select {
		case <-ended:
			ended = nil
			deadline = time.Now().Add(latePatience)
		case <-time.After(time.Millisecond):
		}
	}
	return false
}

// harmless: a move to which nothing happened goes well.
func (c *cell) harmless(code int) *verdict {
	if code != 0 {
		return wrongf("without a fault push exits with %d%s", code, c.story())
	}
	return nil
}

// clear deletes the container and finds what is left on either host.
func (c *cell) clear(ctx context.Context, v *verdict) *verdict {
	for _, h := range []*lab.Host{c.world.A, c.world.B} {
		if out, err := h.Run(ctx, "migrate", "delete", "--force", containerID); err != nil {
			return wrongf("delete on %s: %s %v", h.Name, out, err)
		}
	}
	return c.clean(ctx, v)
}

// clean requires the census of before, of both hosts.
func (c *cell) clean(ctx context.Context, v *verdict) *verdict {
	var left []string
	for deadline := time.Now().Add(patience); ; {
		left = nil
		for _, h := range []*lab.Host{c.world.A, c.world.B} {
			now, err := c.world.count(h)
			if err != nil {
				return wrongf("%v", err)
			}
			for _, name := range now.beyond(c.world.clean[h]) {
				if c.excused(h, name) {
					continue
				}
				left = append(left, strings.TrimPrefix(h.Name, c.world.name+"-")+": "+name)
			}
		}
		if len(left) == 0 {
			return v
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	const shown = 4
	return wrongf("left behind: %s", strings.Join(left[:min(len(left), shown)], "; "))
}

// excused are the names of a keeper that was killed: its sockets, the files that its locks were on, and when the container is its
// host's already, the images that it came from and the note of names that deleted files had. They hold no pages, keep nobody out,
// and go when another keeper starts. They are removed here, for the next cell.
func (c *cell) excused(h *lab.Host, name string) bool {
	if note, ok := strings.CutPrefix(name, "name "); ok && c.step.late && strings.HasPrefix(note, "/var/lib/migrate/deleted/") {
		return os.Remove(root(h, note)) == nil
	}
	path, isFile := strings.CutPrefix(name, "file ")
	killed := c.fault.name == "peer" || c.fault.name == "memory"
	if killed && isFile && c.step.late && strings.Contains(path, "/migrate-images-") {
		return os.RemoveAll(root(h, path)) == nil
	}
	if !killed || !isFile || !slices.Contains([]string{".sock", ".lane", ".lock", ".slot"}, filepath.Ext(path)) {
		return false
	}
	return os.Remove(root(h, path)) == nil
}

func (c *cell) end() {
	c.beats.close()
	c.push.Kill()
	c.client.Close()
	_ = c.world.release()
	_ = c.world.resetClocks()
}
