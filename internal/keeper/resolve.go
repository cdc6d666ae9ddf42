package keeper

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/runtime"
	"github.com/livemigrate/migrate/transport"
)

// ErrNoMove: no move of this container waits for an end on this host.
var ErrNoMove = errors.New("no interrupted move")

// ResolveOrder says which move to end, and how.
type ResolveOrder struct {
	Places

	CRIU          string
	SystemdCgroup bool
	Certificates  transport.Certificates
	Patience      time.Duration
	Force         handover.Force
	Log           *slog.Logger
}

// Resolve ends the newest move of a container that has not ended, whichever side of it this host was.
func Resolve(ctx context.Context, id string, o *ResolveOrder) (report.Outcome, error) {
	story, err := o.find(id)
	if err != nil {
		return report.Unknown, err
	}
	if story.Move.Role == journal.Peer {
		return o.resolvePeer(ctx, story)
	}
	order := &Order{Places: o.Places, Container: id, Peer: story.Move.Peer, CRIU: o.CRIU, SystemdCgroup: o.SystemdCgroup}
	order.Root = story.Move.Root
	c, err := remains(order, o.Log)
	if err != nil && !errors.Is(err, runtime.ErrNotExist) {
		return report.Unknown, err
	}
	resolve := &handover.Resolve{Story: story, Patience: o.Patience, Force: o.Force, Log: o.Log}
	if c != nil {
		resolve.Container = c
	}
	if resolve.Dial, err = o.dial(story); err != nil {
		return report.Unknown, err
	}
	return resolve.Run(ctx)
}

func (o *ResolveOrder) find(id string) (*journal.Story, error) {
	stories, err := journal.List(o.Journals)
	if err != nil {
		o.Log.Warn("some journals can't be read", "error", err)
	}
	var found *journal.Story
	for _, s := range stories { // oldest first
		if s.Move.Container == id && s.Move.Root == o.Root {
			found = s
		}
	}
	if found == nil || found.Ended() {
		return nil, fmt.Errorf("%w of container %s", ErrNoMove, id)
	}
	return found, nil
}

func (o *ResolveOrder) resolvePeer(ctx context.Context, story *journal.Story) (report.Outcome, error) {
	order := &PeerOrder{Places: o.Places, CRIU: o.CRIU, SystemdCgroup: o.SystemdCgroup}
	verdict, err := handover.Settle(ctx, &host{order: order, log: o.Log}, o.Journals, story.Move.Name)
	switch {
	case err != nil:
		return report.Unknown, err
	case verdict.GetDone() != nil:
		return report.Moved, nil
	default:
		return report.Kept, nil
	}
}

func (o *ResolveOrder) dial(story *journal.Story) (handover.Dial, error) {
	token, err := hex.DecodeString(story.Move.Token)
	if err != nil || len(token) != len(transport.Token{}) {
		return nil, fmt.Errorf("%w: token of move %s", journal.ErrCorrupt, story.Move.Name)
	}
	dialer, err := newDialer(story.Move.Peer, o.Certificates)
	if err != nil {
		return nil, err
	}
	return dial(dialer, &transport.ConnectOptions{Token: transport.Token(token), Log: o.Log}, 0), nil
}
