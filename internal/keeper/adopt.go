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
	if err := h.Settle(ctx, m); err != nil { // it may stand still yet
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

// Owed is what was said before the restore.
func (a *adopted) Owed() handover.Owed { return handover.Owed(a.feed.Owed()) }

// Pages stores the pages of a frame.
func (a *adopted) Pages(frame []byte) error { return a.put(frame) }

// Finish waits until the container has all its memory.
func (a *adopted) Finish(ctx context.Context) error { return a.finish(ctx, a.container) }
