package keeper

import (
	"context"
	"fmt"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/line"
	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/internal/preflight"
)

// connect gives the container its network. It is ours already: without one is better than not at all.
func (p *place) connect(ctx context.Context, stalled []link.Stalled) {
	l := p.prepared.Link()
	switch {
	case p.network != nil:
		if err := p.network.open(ctx, stalled); err != nil {
			p.unconnected(preflight.NetworkNamespace, p.network.cure(err), err)
		}
	case l == nil:
		return
	default:
		if err := l.Join(); err != nil {
			c := l.Config()
			p.unconnected(preflight.Bridge, fmt.Sprintf("mend that, then \"ip link set %s master %s up\" there", c.HostEnd, c.Bridge), err)
			return
		}
		// Under a millisecond, and only here: the namespace that it comes from is closed when Open returns.
		p.announce(ctx, l, stalled)
	}
	_ = failpoint.Hit(ctx, failpoint.PeerNetwork)
}

// unconnected is told to the source, whose user would else not know.
func (p *place) unconnected(code preflight.Code, cure string, err error) {
	p.host.log.Error("the container runs without all of its network", "error", err)
	p.lacks = append(p.lacks, preflight.Misfit(preflight.Warning, code, cure, "the container runs there without all of its network: %s", line.Of(err))...)
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
