package keeper

import (
	"context"
	"errors"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/monitor"
)

// watch ends the move and makes this process, the parent of the received container's init, its monitor, if the container had
// one at the source. Otherwise init's next parent is whoever reaps orphans here, as with any detached container.
func (h *host) watch(ctx context.Context) error {
	p := h.place
	if p.stdio == nil || p.running == nil {
		h.finish(ctx)
		return p.lock.Close()
	}
	err := p.carry(ctx)
	if err != nil {
		h.log.Warn("the container's output waits for its monitor", "error", err)
	}
	h.finish(ctx)
	if p.carrier != nil {
		if p.offset, err = p.carrier.Stop(); err != nil {
			h.log.Warn("end the log before the monitor's", "error", err)
		}
	}
	_ = failpoint.Hit(ctx, failpoint.PeerMonitor)
	given := false
	err = monitor.Exec("/proc/self/exe", []string{"monitor"}, &monitor.Config{
		ID:       p.running.ID(),
		StateDir: p.running.StateDir(),
		LogFile:  p.identity.LogFile,
		LogLimit: p.logLimit(),
		Terminal: p.terminal(),
		InitPid:  p.running.InitPid(),
		Offset:   p.offset,
		Listening: func() {
			given = true
			if err := p.lock.Close(); err != nil {
				h.log.Warn("give up the container's id", "error", err)
			}
		},
	}, p.stdio)
	if !given { // there is nothing to watch any more
		err = errors.Join(err, p.lock.Close())
	}
	return err
}

// carry takes the container's output until there is a monitor: the end of the move may take seconds, its memory minutes to come.
func (p *place) carry(ctx context.Context) (err error) {
	if p.carrier != nil || p.stdio == nil || p.running == nil {
		return nil
	}
	if _, err := p.stdio.Output(ctx); err != nil {
		return err
	}
	p.carrier, err = monitor.Carry(p.identity.LogFile, p.offset, p.stdio)
	return err
}

func (h *host) finish(ctx context.Context) {
	if err := h.place.finish(ctx); err != nil {
		h.log.Error("clear up after the move", "error", err)
	}
}
