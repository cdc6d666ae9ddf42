package keeper

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
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
	return o.resolve(ctx, story)
}

// Salvage ends the move that a keeper was ordered to make and left without a result. A move that had not begun was kept.
func Salvage(ctx context.Context, order *Order, o *ResolveOrder) (report.Outcome, error) {
	stories, unread := journal.List(o.Journals)
	var story *journal.Story
	for _, s := range stories {
		// The last attempt by its name: the clock may have been set meanwhile.
		if s.Move.Role == journal.Source && strings.HasPrefix(s.Move.Name, order.Move) && (story == nil || s.Move.Name > story.Move.Name) {
			story = s
		}
	}
	switch {
	case story == nil && unread != nil: // it may be among those
		return report.Unknown, fmt.Errorf("%w: how far the move came can't be read: %w", handover.ErrOutcomeUnknown, unread)
	case story == nil:
		return report.Kept, nil
	case !o.ended(story):
		return o.resolve(ctx, story)
	case story.Last() == journal.Done:
		return report.Moved, nil
	default:
		return report.Kept, nil
	}
}

func (o *ResolveOrder) resolve(ctx context.Context, story *journal.Story) (outcome report.Outcome, err error) {
	id := story.Move.Container
	defer func() {
		if errors.Is(err, journal.ErrLocked) || errors.Is(err, wire.ErrBusy) {
			err = fmt.Errorf("the move of %s is still under way: its own process ends it, wait for that: %w", id, err)
		}
	}()
	if story.Move.Role == journal.Peer {
		return o.resolvePeer(ctx, story)
	}
	order := &Order{Places: o.Places, Container: id, Peer: story.Move.Peer, CRIU: o.CRIU, SystemdCgroup: o.SystemdCgroup}
	order.Root = story.Move.Root
	c, err := remains(order, story.Move.Name, o.Log)
	if err != nil && !errors.Is(err, runtime.ErrNotExist) {
		return report.Unknown, err
	}
	resolve := &handover.Resolve{Story: story, Patience: o.Patience, Force: o.Force, Log: o.Log}
	// From commit-sent on it bears the mark: one without is another, which has got the id since.
	if c != nil && (story.Last() == journal.Begin || c.State().Move == story.Move.Name) {
		resolve.Container = c
	}
	if resolve.Dial, err = o.dial(story); err != nil {
		return report.Unknown, err
	}
	if outcome, err = resolve.Run(ctx); outcome == report.Unknown {
		if err != nil && !errors.Is(err, handover.ErrOutcomeUnknown) && !errors.Is(err, journal.ErrLocked) {
			err = fmt.Errorf("%w: %w", handover.ErrOutcomeUnknown, err)
		}
		return outcome, err
	}
	return outcome, errors.Join(err, o.removeSpool(story.Move.Name))
}

func (o *ResolveOrder) list() []*journal.Story {
	stories, err := journal.List(o.Journals)
	if err != nil {
		o.Log.Warn("some journals can't be read", "error", err)
	}
	return stories
}

func (o *ResolveOrder) find(id string) (*journal.Story, error) {
	marked := o.marked(id)
	var found *journal.Story
	for _, s := range o.list() { // oldest first, by a clock that may have been set
		if s.Move.Container != id || s.Move.Root != o.Root {
			continue
		}
		if found = s; marked != "" && s.Move.Name == marked && s.Move.Role == journal.Source {
			break
		}
	}
	if found == nil || o.ended(found) {
		return nil, fmt.Errorf("%w of container %s", ErrNoMove, id)
	}
	return found, nil
}

// marked is the move that the container here is marked with; empty without one.
func (o *ResolveOrder) marked(id string) string {
	c, err := remains(&Order{Places: o.Places, Container: id, SystemdCgroup: o.SystemdCgroup}, "", o.Log)
	if err != nil {
		return ""
	}
	return c.State().Move
}

// ended tells whether nothing is left to do. The last record comes before the last deed: a container that still carries the
// mark of the move waits for that.
func (o *ResolveOrder) ended(s *journal.Story) bool {
	if !s.Ended() || s.Move.Role == journal.Peer {
		return s.Ended()
	}
	return o.marked(s.Move.Container) != s.Move.Name
}

func (o *ResolveOrder) resolvePeer(ctx context.Context, story *journal.Story) (report.Outcome, error) {
	if o.Force != handover.NoForce {
		return report.Unknown, fmt.Errorf("container %s was on its way to this host: --force-source and --force-peer are for the host it came from", story.Move.Container)
	}
	order := &PeerOrder{Places: o.Places, CRIU: o.CRIU, SystemdCgroup: o.SystemdCgroup}
	h := &host{order: order, log: o.Log}
	verdict, err := handover.Settle(ctx, h, o.Journals, story.Move.Name)
	h.feeding.Wait()
	switch {
	case errors.Is(err, wire.ErrFollowing):
		return report.Unknown, fmt.Errorf("%w: %w: run \"migrate resolve %s\" there, at %s",
			handover.ErrOutcomeUnknown, err, story.Move.Container, story.Move.Peer)
	case err != nil:
		return report.Unknown, err
	case verdict.GetDone() != nil:
		return report.Moved, nil
	default:
		return report.Kept, nil
	}
}

// lanesAgain are for memory that goes on following, of a move whose order is gone.
const lanesAgain = 2

func (o *ResolveOrder) dial(story *journal.Story) (handover.Dial, error) {
	token, err := hex.DecodeString(story.Move.Token)
	if err != nil || len(token) != len(transport.Token{}) {
		return nil, fmt.Errorf("%w: token of move %s", journal.ErrCorrupt, story.Move.Name)
	}
	// The dialer is made when the peer is to be asked: a move that ends without it needs no certificates.
	return func(ctx context.Context, why handover.Why) (handover.Session, error) {
		dialer, err := newDialer(story.Move.Peer, o.Certificates)
		if err != nil {
			return nil, err
		}
		return dial(dialer, &transport.ConnectOptions{Token: transport.Token(token), Log: o.Log}, lanesAgain)(ctx, why)
	}, nil
}
