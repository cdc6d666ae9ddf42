package checkpoint

import (
	"context"
	"errors"
	"fmt"

	"github.com/livemigrate/migrate/internal/sys/tcprepair"
	"github.com/livemigrate/migrate/runtime"
)

// Recover lets a container run on whose dump lost its CRIU, or the process that held it, after post-dump: the cgroup still
// holds the tasks, but connections are in TCP repair, CRIU's firewall rules may be there, and the link is off its bridge.
// Each is put right, then the tasks are thawed. It may be called again, and does no harm to a container that was not dumped.
//
// One thing cannot be found out again: SO_REUSEADDR of the sockets concerned is set.
func Recover(ctx context.Context, c *runtime.Container) error {
	if err := recoverContainer(ctx, c, true); err != nil {
		return fmt.Errorf("recover container %s: %w", c.ID(), err)
	}
	return nil
}

func recoverContainer(ctx context.Context, c *runtime.Container, thaw bool) error {
	if err := c.Freeze(ctx); err != nil {
		return err
	}
	pids, err := c.Processes()
	if err != nil {
		return err
	}
	// The rules first: the end of repair sends a probe, whose answer should come in.
	err = clearRules(ctx, c)
	if state := c.State(); state.Network != nil {
		l, openErr := openLink(c.ID(), state.Network)
		if openErr == nil {
			openErr = l.Join()
		}
		err = errors.Join(err, openErr)
	}
	if _, repairErr := tcprepair.EndAll(pids); repairErr != nil {
		err = errors.Join(err, repairErr)
	}
	if err != nil || !thaw {
		return err // still frozen: a container that would lose its connections does not run on unasked
	}
	return c.Thaw(ctx)
}
