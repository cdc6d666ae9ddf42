package checkpoint

import (
	"context"
	"errors"
	"fmt"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/sys/process"
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

// reconnect ends what cut the container off.
func reconnect(c *runtime.Container) error {
	p, shut, err := openPlug(c)
	if err == nil && p != nil {
		err = p.Join()
	}
	return errors.Join(err, shut())
}

func recoverContainer(ctx context.Context, c *runtime.Container, thaw bool) error {
	// CRIU undoes what is undone here once more, and should be through with it; and who stops the tasks next must not meet it.
	if err := criu.AwaitLetGo(ctx, c.Processes); err != nil && !errors.Is(err, process.ErrTraced) {
		return err
	}
	if err := c.Freeze(ctx); err != nil {
		return err
	}
	pids, err := c.Processes()
	if err != nil {
		return err
	}
	// The rules first: the end of repair sends a probe, whose answer should come in.
	err = clearRules(ctx, c)
	err = errors.Join(err, reconnect(c), reblockTerminals(c))
	if _, repairErr := tcprepair.EndAll(pids); repairErr != nil {
		err = errors.Join(err, repairErr)
	}
	if err != nil || !thaw {
		return err // still frozen: a container that would lose its connections does not run on unasked
	}
	return c.Thaw(ctx)
}
