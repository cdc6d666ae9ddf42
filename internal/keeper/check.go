package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/runtime"
	"github.com/livemigrate/migrate/transport"
)

// Preflight is what Check found.
type Preflight struct {
	Source      string             // this host
	Destination string             // the peer; empty when it was not asked, or said no
	Findings    preflight.Findings // what matters most first
}

// Check tells whether the order would work: without a container it looks at this host alone, without a peer at this host
// and the container. Nothing is started, stopped or left. An error is a container that is not there, or a peer that could
// not be asked; what was found until then is returned along with it.
func Check(ctx context.Context, o *Order, log *slog.Logger) (*Preflight, error) {
	p := &Preflight{Source: hostname()}
	if o.Container == "" {
		found, err := o.lookAtHost(ctx, log)
		p.Findings = found.On(p.Source).Sort()
		return p, err
	}
	c, err := remains(o, "", log)
	if err != nil {
		return p, err
	}
	c.plan()
	client, _, found := preflight.CRIU(ctx, o.CRIU, log)
	if client != nil {
		found = nil // with the version in hand it is judged below
		c.facts = o.askCRIU(ctx, client, log)
		err = client.Close()
	}
	found = append(found, c.passing()...)
	p.Findings = found.On(p.Source)
	if err != nil {
		return p, err
	}
	findings, err := c.ask(ctx)
	err = errors.Join(err, c.unmark(), c.leaveDeleted())
	p.Findings = append(p.Findings, findings.found...).Sort()
	for i := range p.Findings {
		if f := &p.Findings[i]; o.Besides > 0 && (f.Code == string(preflight.MemorySpace) || f.Code == string(preflight.MemoryLimit)) {
			f.Text += fmt.Sprintf(" (counted with %d MB of those that move before it)", o.Besides>>20)
		}
	}
	p.Destination = findings.offer.GetDestination()
	return p, err
}

// lookAtHost is what a host lacks for any move, to it or from it.
func (o *Order) lookAtHost(ctx context.Context, log *slog.Logger) (preflight.Findings, error) {
	client, _, found := preflight.CRIU(ctx, o.CRIU, log)
	if client != nil {
		if err := client.Close(); err != nil {
			return found, err
		}
	}
	host, err := preflight.Host(ctx, &preflight.HostOptions{
		Role: preflight.Source | preflight.Peer, Feed: o.Feed, Follows: follows(o.Mode), Spool: o.spoolParent(),
	})
	return append(found, host...), err
}

func follows(m handover.Mode) bool { return m == handover.PostCopy || m == handover.Hybrid }

// passing is what a move would refuse or wait for, and a moment later may not.
func (c *container) passing() preflight.Findings {
	if err := checkRunning(c.Container); err != nil {
		cure := "start or resume it"
		if errors.Is(err, runtime.ErrMoving) {
			cure = ""
		}
		return preflight.Misfit(preflight.Blocker, preflight.NotRunning, cure, "%v", err)
	}
	if err := feed.Check(c.StateDir()); errors.Is(err, feed.ErrUnattended) || errors.Is(err, feed.ErrLost) {
		return preflight.Misfit(preflight.Blocker, preflight.Arriving, "migrate resolve "+c.ID(), "%v", err)
	}
	if c.order.busy(c.ID()) {
		return preflight.Misfit(preflight.Warning, preflight.Arriving, "wait for its end", "the move that brought the container here has not ended")
	}
	return nil
}

// answer is what both hosts say.
type answer struct {
	found []report.Finding
	offer *wire.Offer
}

// ask has both hosts look; without a peer, this one.
func (c *container) ask(ctx context.Context) (answer, error) {
	if c.order.Peer == "" {
		_, found, err := c.preflight(ctx)
		return answer{found: found.On(hostname())}, err
	}
	dialer, err := newDialer(c.order.Peer, c.order.Certificates)
	if err != nil {
		return answer{}, err
	}
	check := &handover.Check{
		Move: attemptName(newMove(), 0), Container: c, Mode: c.order.Mode, Log: c.log,
		Dial: c.order.inTurn(dial(dialer, &transport.ConnectOptions{Token: transport.NewToken(), Log: c.log}, noLanes), c.log),
	}
	found, offer, err := check.Run(ctx)
	return answer{found, offer}, err
}
