package restore

import (
	"context"
	"time"

	"github.com/livemigrate/migrate/runtime"
)

// freezePatience bounds the freeze: all tasks stand under CRIU already, and the service is waiting.
const freezePatience = 200 * time.Millisecond

// freeze keeps the tasks where they are until CRIU has let go of every one. It lets them go one by one, and one that is
// killed before its turn, by a thread or a parent that runs already, is taken for a failure: CRIU then kills the whole
// tree ("Unable to detach"), which by then is the container. Without a freezer it goes as CRIU has it.
func (g *Gate) freeze(ctx context.Context, c *runtime.Container) {
	ctx, cancel := context.WithTimeout(ctx, freezePatience)
	defer cancel()
	if c.FreezerPath() == "" {
		return
	}
	// With a cgroup namespace to make, CRIU has gone into the container's cgroups itself.
	err := c.Expel(g.client.Pid())
	var undo func() error
	if err == nil {
		undo, err = c.Halt(ctx)
	}
	if err != nil {
		g.options.log().Warn("a restored process that is killed at once could end the restore", "error", err)
		return
	}
	g.undoFreeze = undo
}

// thaw lets the tasks run, or die: a frozen one takes no signal under cgroup v1. Only the first call does anything.
func (a *attempt) thaw() error {
	thaw := a.undoFreeze
	a.undoFreeze = nil
	if thaw == nil {
		return nil
	}
	return thaw()
}
