package migrate

import (
	"context"
	"time"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/keeper"
)

// Force says which side of an interrupted move is gone for good. Whoever gives it has fenced that side.
type Force = handover.Force

// The choices.
const (
	NoForce     = handover.NoForce
	ForceSource = handover.ForceSource // the peer is gone: the container runs on at the source
	ForcePeer   = handover.ForcePeer   // it runs at the peer: the source's copy goes
)

// ResolveOptions says how to end an interrupted move. nil means the defaults.
type ResolveOptions struct {
	Host         Host
	Certificates Certificates  // for a tls:// peer
	Patience     time.Duration // how long to try to reach the peer; default 10 s
	Force        Force
}

// Resolve ends the interrupted move of a container, on either host, from this host's journal and the other side's answer.
// It returns Moved or Kept, or Unknown with ErrOutcomeUnknown when the peer can't be asked; then nothing has changed.
// Kept with an error when nothing was left to run on, ErrNoMove when there is nothing to end.
func Resolve(ctx context.Context, id string, o *ResolveOptions) (Outcome, error) {
	var options ResolveOptions
	if o != nil {
		options = *o
	}
	host, err := options.Host.fill()
	if err != nil {
		return Unknown, err
	}
	if options.Patience == 0 {
		options.Patience = 10 * time.Second
	}
	return keeper.Resolve(ctx, id, options.order(host))
}

// Refeed gives a container on this host the rest of its memory, when the processes that were doing so were killed: it stands
// still meanwhile at the first page that it lacks. It returns when the container has all; false when there was nothing to do
// here. A container that cannot be given its memory any more is killed, which is an error.
func Refeed(ctx context.Context, id string, h Host) (bool, error) {
	host, err := h.fill()
	if err != nil {
		return false, err
	}
	var options ResolveOptions
	return keeper.Refeed(ctx, id, options.order(host))
}

func (o *ResolveOptions) order(host Host) *keeper.ResolveOrder {
	return &keeper.ResolveOrder{
		Places:        host.places(""),
		CRIU:          host.CRIU,
		SystemdCgroup: host.SystemdCgroup,
		Certificates:  o.Certificates,
		Patience:      o.Patience,
		Force:         o.Force,
		Log:           host.Log,
	}
}
