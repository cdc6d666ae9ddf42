package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

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
	lock      *idLock
}

// Adopt goes on with a container whose keeper is gone: its memory is taken over from the holder that the feeder has left.
func (h *host) Adopt(ctx context.Context, m journal.Move) (_ handover.Adopted, err error) {
	lock, err := h.order.lock(m.Container)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
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
	return &adopted{debt: newDebt(f), container: c, lock: lock}, nil
}

// arrived is the container that the move brought, if it lives. ErrPaid when it has ended and had all its memory, ErrEnded when that
// is not known.
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
	switch {
	case c.State().Arrival != m.Name:
		return nil, wire.ErrEnded
	case status != runtime.Stopped:
		return c, nil
	}
	whole, err := feed.Whole(c.StateDir())
	switch {
	case err != nil:
		return nil, err
	case whole:
		return nil, wire.ErrPaid
	default:
		return nil, wire.ErrEnded
	}
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
		return nil, errors.Join(err, s.Leave())
	}
	owed := s.Owed()
	f.store, err = store.Open(&store.Options{
		File:   file,
		Limit:  (owed.Slot + owed.Pages) * memory.PageSize,
		Stored: func(s pages.Slots) { f.feed.Arrived(s.First, s.Pages) },
	})
	if err != nil {
		return nil, errors.Join(err, file.Close(), s.Leave())
	}
	return f, nil
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
// here or restored from images. It returns when that is done; false when there was nothing to do, or when the move that brings
// it has to be ended first.
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
	if !o.complete(c, o.Log) {
		return false, nil
	}
	if err := feed.Check(c.StateDir()); !errors.Is(err, feed.ErrUnattended) {
		return false, err
	}
	f, err := adoptFeeding(ctx, c.StateDir(), o.Log)
	if errors.Is(err, feed.ErrFed) || errors.Is(err, feed.ErrFeeding) {
		return false, nil // somebody was quicker
	}
	if err != nil {
		return false, err
	}
	return true, f.finish(context.WithoutCancel(ctx), c)
}

// errHalf is of a container that is not this host's, or whose source has the rest.
var errHalf = errors.New("the move that was bringing it here has not ended: \"migrate resolve\" ends it")

// CheckMemory tells of a container on this host that lacks memory which nobody gives it, and what ends that. It does not wait.
func (p Places) CheckMemory(c *runtime.Container, log *slog.Logger) error {
	err := feed.Check(c.StateDir())
	switch {
	case errors.Is(err, feed.ErrLost) && !p.complete(c, log):
		return errHalf
	case errors.Is(err, feed.ErrLost), errors.Is(err, feed.ErrUnattended):
		return err
	default:
		return nil // it has it, or is being given it, or is gone
	}
}

// complete tells whether a container on this host has come here with all that its source had of it, if it was moved here at all.
// Otherwise its move has to be ended first, which may destroy it or have its source send the rest.
func (p Places) complete(c *runtime.Container, log *slog.Logger) bool {
	arrival := c.State().Arrival
	if arrival == "" {
		return true
	}
	story, err := journal.Read(p.Journals, arrival, journal.Peer)
	if errors.Is(err, os.ErrNotExist) {
		return true // nobody asks for it any more
	}
	if err != nil {
		log.Warn("the journal of the move that brought it can't be read", "container", c.ID(), "error", err)
		return true
	}
	return story.Last() == journal.Running
}

// Owed is what was said before the restore.
func (a *adopted) Owed() handover.Owed { return handover.Owed(a.feed.Owed()) }

// Pages stores the pages of a frame.
func (a *adopted) Pages(frame []byte) error { return a.put(frame) }

// Finish waits until the container has all its memory.
func (a *adopted) Finish(ctx context.Context) error {
	return errors.Join(a.finish(ctx, a.container), a.lock.Close())
}
