package keeper

import (
	"context"

	"github.com/livemigrate/migrate/internal/monitor"
)

// watch makes this process, the parent of the received container's init, its monitor, if the container had one at the
// source. Otherwise it returns at once: init's next parent is whoever reaps orphans here, as with any detached container.
func (h *host) watch(ctx context.Context) error {
	p := h.place
	if err := p.finish(ctx); err != nil {
		h.log.Error("clear up after the move", "error", err)
	}
	if p.stdio == nil || p.running == nil {
		return nil
	}
	if _, err := p.stdio.Output(ctx); err != nil {
		return err
	}
	return monitor.Exec("/proc/self/exe", []string{"monitor"}, &monitor.Config{
		ID:       p.running.ID(),
		StateDir: p.running.StateDir(),
		LogFile:  p.identity.LogFile,
		Terminal: p.terminal(),
		InitPid:  p.running.InitPid(),
		Offset:   p.offset,
	}, p.stdio)
}
