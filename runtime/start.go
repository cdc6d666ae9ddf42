package runtime

import (
	"context"
	"errors"
	"fmt"

	"github.com/livemigrate/migrate/runtime/internal/hooks"
	"github.com/livemigrate/migrate/runtime/internal/launch"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Start lets a created container run its program. ErrStarted and ErrStopped when it is too late. When a poststart hook
// fails, the container is killed.
func (c *Container) Start(ctx context.Context) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	switch status {
	case Created:
	case Stopped:
		return ErrStopped
	case Running:
		return ErrStarted
	default:
		return fmt.Errorf("cannot start a container in the %s state", status)
	}
	pid, start := c.init()
	err = launch.OpenFifo(ctx, c.dir, pid, start)
	if errors.Is(err, launch.ErrStarted) { // by somebody else, since we looked
		return ErrStarted
	}
	if err != nil {
		return err
	}
	return c.poststart(ctx)
}

// poststart runs the hooks that belong to a container that has just begun to run.
func (c *Container) poststart(ctx context.Context) error {
	err := hooks.Run(ctx, c.state.Plan.Spec.Hooks, hooks.Poststart, c.ociState(specs.StateRunning))
	if err == nil {
		return nil
	}
	if kill := c.KillAll(context.WithoutCancel(ctx)); kill != nil {
		return errors.Join(err, kill)
	}
	return err
}
