package interchange

import (
	"context"
	"errors"
	"testing"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/restore"
	"github.com/livemigrate/migrate/runtime"
)

const counting = `i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.05; done`

// restored is the container from the images, in the place of one that is deleted.
func (h *host) restore(id, bundle, images string, change func(*restore.Options)) (*container, error) {
	h.t.Helper()
	spec, err := runtime.LoadSpec(bundle)
	if err != nil {
		h.t.Fatal(err)
	}
	plan, err := runtime.Parse(bundle, spec, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	r, w, stdin := h.pipes()
	defer w.Close()
	defer stdin.Close()
	o := &restore.Options{ImagesDir: images, Stdin: stdin, Stdout: w, Stderr: w}
	if change != nil {
		change(o)
	}
	c, err := restore.Run(h.t.Context(), h.rt, id, plan, nil, o)
	return &container{Container: c, output: r}, err
}

func TestContainerGoesOnWhereItWas(t *testing.T) {
	h := newHost(t)
	bundle := h.bundle("b", nil, "sh", "-c", counting)
	c := h.start("count", bundle, nil)
	c.expect(t, "tick 3\n")
	pid := c.InitPid()
	if err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1")}); err != nil {
		t.Fatal(err)
	}
	reap(pid)
	if !gone(pid) {
		t.Errorf("%d is alive after a checkpoint", pid)
	}
	if err := c.Delete(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	again, err := h.restore("count", bundle, h.images("1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	again.goesOn(t)
	if status, err := again.Status(); err != nil || status != runtime.Running {
		t.Errorf("status %v, %v", status, err)
	}
}

func TestRollbackLetsItRunOn(t *testing.T) {
	h := newHost(t)
	c := h.start("held", h.bundle("b", nil, "sh", "-c", counting), nil)
	c.expect(t, "tick 3\n")
	held, err := checkpoint.Begin(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1")})
	if err != nil {
		t.Fatal(err)
	}
	if status, err := c.Status(); err != nil || status != runtime.Paused {
		t.Errorf("status %v while held, %v", status, err)
	}
	if err := held.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.goesOn(t)
}

func TestCancelledCheckpointLetsItRunOn(t *testing.T) {
	h := newHost(t)
	c := h.start("cancelled", h.bundle("b", nil, "sh", "-c", counting), nil)
	c.expect(t, "tick 3\n")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := checkpoint.Begin(ctx, c.Container, &checkpoint.Options{
		ImagesDir:    h.images("1"),
		BeforeFreeze: func(context.Context) error { cancel(); return nil },
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	c.goesOn(t)
}

func TestPausedContainerStaysPaused(t *testing.T) {
	h := newHost(t)
	bundle := h.bundle("b", nil, "sh", "-c", counting)
	c := h.start("paused", bundle, nil)
	c.expect(t, "tick 3\n")
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	stays := func(what string) {
		t.Helper()
		if status, err := c.Status(); err != nil || status != runtime.Paused {
			t.Errorf("after %s: %v, %v", what, status, err)
		}
	}
	if err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1"), LeaveRunning: true}); err != nil {
		t.Fatal(err)
	}
	stays("a checkpoint that leaves it")
	held, err := checkpoint.Begin(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("2")})
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	stays("a rollback")
	if err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("3")}); err != nil {
		t.Fatal(err)
	}
	reap(c.State().InitProcessPid)
	if err := c.Delete(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	again, err := h.restore("paused", bundle, h.images("3"), nil)
	if err != nil {
		t.Fatal(err)
	}
	again.goesOn(t) // a restore lets it run, as runc's does
}
