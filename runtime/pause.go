package runtime

import (
	"context"

	"github.com/livemigrate/migrate/runtime/internal/cgroup"
)

// Pause stops all processes of a created or running container until Resume. ErrNotRunning for any other.
func (c *Container) Pause(ctx context.Context) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	if status == Paused || status.become(Paused) != nil {
		return ErrNotRunning
	}
	return c.group.Freeze(ctx)
}

// Resume lets a paused container run on. ErrNotPaused for any other; ErrMoving when it was not paused by its user.
func (c *Container) Resume(ctx context.Context) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	if status != Paused {
		return ErrNotPaused
	}
	if c.State().Move != "" {
		return ErrMoving
	}
	return c.group.Thaw(ctx)
}

// Freeze stops all processes whatever the container's state is, and returns when they stand still; a task stopped by
// ptrace counts. Idempotent. On failure the container is thawed. Without a deadline in ctx it takes 10 seconds at most.
func (c *Container) Freeze(ctx context.Context) error { return c.group.Freeze(ctx) }

// Halt freezes for a moment: goOn thaws, whatever became of ctx.
func (c *Container) Halt(ctx context.Context) (goOn func() error, err error) {
	return func() error { return c.Thaw(context.WithoutCancel(ctx)) }, c.Freeze(ctx)
}

// Thaw undoes Freeze. Idempotent.
func (c *Container) Thaw(ctx context.Context) error { return c.group.Thaw(ctx) }

// FreezerPath is the absolute directory of the cgroup that Freeze freezes, "" without one.
func (c *Container) FreezerPath() string { return c.group.FreezerDir() }

// Loosen takes a process out of the freezer until tighten is called. Of cgroup v1's freezer alone; on v2, whose freezer lets tracers
// do what they want, it is an error.
func (c *Container) Loosen(pid int) (tighten func() error, err error) { return c.group.Loosen(pid) }

// FreezesStopped tells whether the freezer holds tasks that a signal has stopped so that no tracer can seize them: cgroup v1's does.
func (c *Container) FreezesStopped() bool { return c.group.FreezerDir() != "" && !cgroup.V2() }
