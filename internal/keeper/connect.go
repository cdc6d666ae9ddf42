package keeper

import (
	"context"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/link"
)

// connect gives the container its network. It is ours already: without one is better than not at all.
func (p *place) connect(ctx context.Context, stalled []link.Stalled) {
	l := p.prepared.Link()
	switch {
	case p.network != nil:
		if err := p.network.open(ctx, stalled); err != nil {
			p.host.log.Error("the container runs without all of its network", "error", err)
		}
	case l == nil:
		return
	default:
		if err := l.Join(); err != nil {
			p.host.log.Error("the container runs without its network", "error", err)
			return
		}
		// Under a millisecond, and only here: the namespace that it comes from is closed when Open returns.
		p.announce(ctx, l, stalled)
	}
	_ = failpoint.Hit(ctx, failpoint.PeerNetwork)
}

// announce makes the network and the other ends of connections notice at once that the container is here. They would in
// time, so a failure is not the move's.
func (p *place) announce(ctx context.Context, l *link.Link, stalled []link.Stalled) {
	if err := l.Announce(ctx); err != nil {
		p.host.log.Warn("the network was not told of the new place", "error", err)
	}
	if err := l.Wake(ctx, stalled); err != nil {
		p.host.log.Warn("clients were not told to try again", "error", err)
	}
}

// stalled lists the connections whose other ends have been sending to nobody since the freeze.
func (p *place) stalled() []link.Stalled {
	connections, err := image.Connections(p.images)
	if err != nil {
		p.host.log.Warn("connections are left to their own timers", "error", err)
	}
	stalled := make([]link.Stalled, 0, len(connections))
	for _, c := range connections {
		stalled = append(stalled, link.Stalled(c))
	}
	return stalled
}
