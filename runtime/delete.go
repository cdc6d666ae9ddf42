package runtime

import (
	"context"
	"errors"
	"fmt"

	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/runtime/internal/hooks"
	"github.com/livemigrate/migrate/runtime/internal/rdt"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// NotStoppedError is a delete without force of a container that runs. It is ErrRunning to errors.Is.
type NotStoppedError struct {
	ID     string
	Status Status
}

func (e *NotStoppedError) Error() string {
	return fmt.Sprintf("cannot delete container %s that is not stopped: %s", e.ID, e.Status)
}

// Is makes it ErrRunning.
func (e *NotStoppedError) Is(target error) bool { return target == ErrRunning }

// Delete removes all that there is of a stopped container, or of one that was created and not started; with force of any,
// after killing it. A second Delete of a container that is gone is ErrNotExist, with force nil. When a poststop hook
// fails the container is gone all the same, and the error says so.
func (c *Container) Delete(ctx context.Context, force bool) error {
	release, err := lockState(c.dir)
	if errors.Is(err, ErrNotExist) && force {
		return nil
	}
	if err != nil {
		return err
	}
	defer release()
	status, err := c.Status()
	switch {
	case force:
	case err != nil:
		return err
	case status != Stopped && status != Created:
		return &NotStoppedError{ID: c.id, Status: status}
	}
	return c.destroy(ctx)
}

// destroy kills first, even what counts as stopped: a container that shares its pid namespace may have processes left
// without its init.
func (c *Container) destroy(ctx context.Context) error {
	if err := c.KillAll(ctx); err != nil {
		return fmt.Errorf("unable to destroy container: %w", err)
	}
	if err := c.group.Destroy(); err != nil {
		return fmt.Errorf("unable to destroy container: unable to remove container's cgroup: %w", err)
	}
	if group := c.rdtGroup(rdt.Root()); group != nil {
		if err := group.Remove(); err != nil {
			return fmt.Errorf("unable to destroy container: %w", err)
		}
	}
	if err := c.disconnect(); err != nil {
		return fmt.Errorf("unable to destroy container: %w", err)
	}
	if err := removeStateDir(c.dir); err != nil {
		return fmt.Errorf("unable to destroy container: %w", err)
	}
	return hooks.Run(ctx, c.state.Plan.Spec.Hooks, hooks.Poststop, c.ociState(specs.StateStopped))
}

// disconnect deletes the link, or the network namespace that was made for the container. The kernel deletes a link too, but only
// some time after the last process is gone.
func (c *Container) disconnect() error {
	if path := c.state.Plan.NamespacePath(specs.NetworkNamespace); c.state.OwnsNetwork && path != "" {
		return netns.Unbind(path)
	}
	network := c.state.Network
	if network == nil || network.HostEnd == "" {
		return nil
	}
	l, err := link.Open(c.id, nil, network)
	if errors.Is(err, link.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.Delete()
}
