package runtime

import "context"

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
