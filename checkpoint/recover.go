package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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

// untracedLimit is how long a CRIU that has lost its caller has for undoing its dump.
const untracedLimit = 10 * time.Second

// awaitUntraced returns when CRIU has let go of every task, or is not going to. It undoes what is undone here once more, and
// should be through with it; and who stops the tasks next must not meet it. Debuggers, which the container may have of its own,
// are not waited for.
func awaitUntraced(ctx context.Context, c *runtime.Container) error {
	ctx, cancel := context.WithTimeout(ctx, untracedLimit)
	defer cancel()
	err := process.AwaitUntraced(ctx, func() ([]int, error) {
		pids, err := c.Processes()
		return slices.DeleteFunc(pids, func(pid int) bool { return !tracedByCRIU(pid) }), err
	})
	if errors.Is(err, process.ErrTraced) {
		return nil
	}
	return err
}

func tracedByCRIU(pid int) bool {
	tracer, err := process.Tracer(pid)
	return err == nil && tracer != 0 && criu.Serving(tracer)
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
	if err := awaitUntraced(ctx, c); err != nil {
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
