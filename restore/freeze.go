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
	err := g.criuExpelled()
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

// expelCRIU begins to take CRIU out of the container's cgroups, in which it was for its cgroup namespace, and is not to be
// frozen. The kernel takes some milliseconds for it.
func (a *attempt) expelCRIU() {
	if a.cgroups == "" {
		return
	}
	a.expelled = make(chan error, 1)
	go func() { a.expelled <- a.prepared.Expel(a.client.Pid()) }()
}

// criuExpelled returns when that is done.
func (a *attempt) criuExpelled() error {
	if a.expelled == nil {
		return nil
	}
	err := <-a.expelled
	a.expelled <- err // for whoever else asks
	return err
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
