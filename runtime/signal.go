package runtime

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// killLimit is how long a kill may take when the caller sets no limit: what lives longer hangs in the kernel.
const killLimit = 10 * time.Second

// Signal sends a signal to init, or to every process of the container. SIGKILL for a container that shares its pid
// namespace means every process: with init gone the others would stay. On cgroup v1 a paused container is thawed for
// SIGKILL, which waits for that otherwise. ErrNotRunning when there is nobody to send it to.
func (c *Container) Signal(ctx context.Context, sig syscall.Signal, all bool) error {
	if all || sig == unix.SIGKILL && !c.sharesNothing() {
		return c.signalAll(ctx, sig)
	}
	return c.signalInit(ctx, sig)
}

// sharesNothing: init's death is the death of all.
func (c *Container) sharesNothing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Plan.Private(specs.PIDNamespace)
}

func (c *Container) signalInit(ctx context.Context, sig syscall.Signal) error {
	pid, start := c.init()
	err := procSignal(pid, start, sig)
	if errors.Is(err, ErrNotRunning) {
		return ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("unable to signal init: %w", err)
	}
	if sig == unix.SIGKILL {
		if frozen, err := c.group.Frozen(); err == nil && frozen {
			return c.group.Thaw(ctx)
		}
	}
	return nil
}

func (c *Container) signalAll(ctx context.Context, sig syscall.Signal) error {
	count, err := c.group.Signal(sig)
	switch {
	case err == nil && count > 0:
		if sig == unix.SIGKILL {
			return c.group.Thaw(ctx)
		}
		return nil
	case err == nil || c.rootlessCgroups(): // nobody in the cgroup, or no cgroup
		return c.signalInit(ctx, sig)
	}
	return fmt.Errorf("unable to kill all processes: %w", err)
}

func (c *Container) rootlessCgroups() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.RootlessCgroups
}

// KillAll kills every process of the container, paused or not, and returns when all are gone. None is no error. Without
// a deadline in ctx it takes 10 seconds at most.
func (c *Container) KillAll(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		limited, cancel := context.WithTimeout(ctx, killLimit)
		defer cancel()
		ctx = limited
	}
	if err := c.group.Kill(ctx); err != nil {
		return fmt.Errorf("unable to kill all processes: %w", err)
	}
	// Init is in the cgroup, unless rootless mode had none to put it in.
	if err := c.signalInit(ctx, unix.SIGKILL); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	if err := c.Wait(ctx); err != nil {
		return fmt.Errorf("container init still running: %w", err)
	}
	return nil
}
