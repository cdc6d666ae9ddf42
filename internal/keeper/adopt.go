package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/memory/pages"
	"github.com/livemigrate/migrate/internal/memory/store"
	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/runtime"
)

// adopted is a container that lacks memory and lost its keeper.
type adopted struct {
	*debt
	container *runtime.Container
}

// Adopt goes on with a container whose keeper is gone: its memory is taken over from the holder that the feeder has left.
func (h *host) Adopt(ctx context.Context, m journal.Move) (handover.Adopted, error) {
	c, err := h.arrived(m)
	if err != nil {
		return nil, err
	}
	if err := h.release(ctx, c, m); err != nil { // it may stand still yet
		return nil, err
	}
	f, err := adoptFeeding(ctx, c.StateDir(), h.log)
	switch {
	case errors.Is(err, feed.ErrFeeding):
		return nil, fmt.Errorf("%w: %w", wire.ErrBusy, err)
	case errors.Is(err, feed.ErrFed):
		return nil, wire.ErrPaid
	case errors.Is(err, feed.ErrLost):
		return nil, fmt.Errorf("%w: %w", wire.ErrOwed, err)
	case err != nil:
		return nil, err
	}
	return &adopted{debt: newDebt(f), container: c}, nil
}

// arrived is the container that the move brought, if it lives.
func (h *host) arrived(m journal.Move) (*runtime.Container, error) {
	rt, err := h.open()
	if err != nil {
		return nil, err
	}
	c, err := rt.Load(m.Container)
	if errors.Is(err, runtime.ErrNotExist) {
		return nil, wire.ErrEnded
	}
	if err != nil {
		return nil, err
	}
	status, err := c.Status()
	if err != nil {
		return nil, err
	}
	if c.State().Arrival != m.Name || status == runtime.Stopped {
		return nil, wire.ErrEnded
	}
	return c, nil
}

// adoptFeeding goes on with a feeding that nobody watches.
func adoptFeeding(ctx context.Context, stateDir string, log *slog.Logger) (*feeding, error) {
	s, err := feed.Adopt(ctx, stateDir, log)
	if err != nil {
		return nil, err
	}
	f := &feeding{feed: s, lazy: true, log: log}
	file, err := s.StoreFile()
	if err != nil {
		return nil, err // what the feeder has it goes on with
	}
	owed := s.Owed()
	f.store, err = store.Open(&store.Options{
		File:   file,
		Limit:  (owed.Slot + owed.Pages) * memory.PageSize,
		Stored: func(s pages.Slots) { f.feed.Arrived(s.First, s.Pages) },
	})
	return f, err
}

// refeed goes on with the feeding of a container whose memory is all here, if its keeper and maybe its feeder were killed before
// the end. The process has to wait for h.feeding.
func (h *host) refeed(ctx context.Context, c *runtime.Container) {
	f, err := adoptFeeding(ctx, c.StateDir(), h.log)
	if errors.Is(err, feed.ErrFed) || errors.Is(err, feed.ErrFeeding) {
		return
	}
	if err != nil { // it may stand still: state and push tell
		h.log.Error("nobody gives the container its memory", "container", c.ID(), "error", err)
		return
	}
	h.log.Info("gives the container its memory in place of its keeper", "container", c.ID())
	h.feeding.Go(func() {
		if err := f.finish(context.WithoutCancel(ctx), c); err != nil {
			h.log.Error("feed memory", "container", c.ID(), "error", err)
		}
	})
}

// Refeed gives a container on this host the rest of its memory when the processes that did so are gone, whether it was moved
// here or restored from images. It returns when that is done; false when there was nothing to do, or when it is the source of a
// move that has the rest.
func Refeed(ctx context.Context, id string, o *ResolveOrder) (bool, error) {
	h := &host{order: &PeerOrder{Places: o.Places, SystemdCgroup: o.SystemdCgroup}, log: o.Log}
	rt, err := h.open()
	if err != nil {
		return false, err
	}
	c, err := rt.Load(id)
	if errors.Is(err, runtime.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := feed.Check(c.StateDir()); !errors.Is(err, feed.ErrUnattended) {
		return false, err
	}
	for _, s := range o.list() {
		if s.Move.Role == journal.Peer && s.Move.Name == c.State().Arrival && s.Last() == journal.Owing {
			return false, nil
		}
	}
	f, err := adoptFeeding(ctx, c.StateDir(), o.Log)
	if err != nil {
		return false, err
	}
	return true, f.finish(context.WithoutCancel(ctx), c)
}

// Owed is what was said before the restore.
func (a *adopted) Owed() handover.Owed { return handover.Owed(a.feed.Owed()) }

// Pages stores the pages of a frame.
func (a *adopted) Pages(frame []byte) error { return a.put(frame) }

// Finish waits until the container has all its memory.
func (a *adopted) Finish(ctx context.Context) error { return a.finish(ctx, a.container) }
