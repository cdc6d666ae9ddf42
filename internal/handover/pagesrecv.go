package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/wire"
)

// pageReceiver hands the page frames that arrive on the lanes to the place, and knows when all of them are stored.
type pageReceiver struct {
	store func(frame []byte) error

	mu    sync.Mutex
	came  uint64        // frames that were stored, or given up
	due   uint64        // frames that the source has told of
	err   error         // the first that could not be stored
	later bool          // nobody waits for it: see follow
	moved chan struct{} // has a token whenever a frame came
}

func newPageReceiver(store func([]byte) error) *pageReceiver {
	return &pageReceiver{store: store, moved: make(chan struct{}, 1)}
}

// take stores a frame. A failure is told at the next barrier, where the source can still choose: until then frames are
// counted and dropped.
func (r *pageReceiver) take(frame []byte) error {
	pages, err := wire.DecodePages(frame)
	if err != nil {
		return err
	}
	if r.failure() == nil {
		err = r.store(pages)
	}
	r.mu.Lock()
	r.came++
	if r.later {
		r.mu.Unlock()
		return err
	}
	if r.err == nil {
		r.err = err
	}
	r.mu.Unlock()
	select {
	case r.moved <- struct{}{}:
	default:
	}
	return nil
}

func (r *pageReceiver) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// wait returns when so many more frames are stored, or with why they are not.
func (r *pageReceiver) wait(ctx context.Context, frames uint64) error {
	r.mu.Lock()
	r.due += frames
	r.mu.Unlock()
	for {
		r.mu.Lock()
		came, due, err := r.came, r.due, r.err
		r.mu.Unlock()
		switch {
		case came > due:
			return fmt.Errorf("%w: %d page frames came, %d were told of", wire.ErrMalformed, came, due)
		case came == due && err != nil:
			return fmt.Errorf("store memory: %w", err)
		case came == due:
			return nil
		}
		select {
		case <-r.moved:
		case <-ctx.Done():
			return because(ctx, ctx.Err())
		}
	}
}

// restart: the lanes are others, and count from nothing.
func (r *pageReceiver) restart() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.came, r.due = 0, 0
}

// follow: from here on there are no barriers, and a frame that can't be stored ends its lane.
func (r *pageReceiver) follow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.later = true
}

// forgive makes the next frames be stored again.
func (r *pageReceiver) forgive() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = nil
}

// drain takes what one lane brings, until the lane ends.
func (r *Receive) drain(ctx context.Context, lane Channel) error {
	var buf []byte
	for {
		frame, err := lane.Recv(ctx, buf)
		switch {
		case errors.Is(err, io.EOF) || ctx.Err() != nil:
			return nil //nolint:nilerr // the lane was ended, or is not wanted any more: no failure of its own
		case err != nil:
			return fmt.Errorf("%w: image lane: %w", ErrLinkLost, err)
		}
		buf = frame
		switch {
		case wire.IsPages(frame) && r.pages != nil:
			err = r.pages.take(frame)
		case r.images != nil:
			err = r.images.take(frame)
		default: // of an adopted container, which has its images
			err = fmt.Errorf("%w: an image where pages follow", wire.ErrMalformed)
		}
		if err != nil {
			return err
		}
	}
}

// round ends a round of memory: the answer is that all of it is stored, or that it could not be.
func (r *Receive) round(ctx context.Context, sent *wire.PagesSent) error {
	if r.pages == nil {
		return fmt.Errorf("%w: pages before prepare, or not asked for", wire.ErrMalformed)
	}
	err := r.pages.wait(ctx, sent.GetFrames())
	if ctx.Err() != nil || errors.Is(err, wire.ErrMalformed) {
		return err
	}
	if err := failpoint.Hit(ctx, failpoint.PeerPages); err != nil {
		return err
	}
	if sent.GetForget() {
		r.pages.forgive()
		if err = r.place.Forget(); err != nil {
			return fmt.Errorf("forget the memory: %w", err)
		}
	}
	stored := &wire.PagesStored{}
	if err != nil {
		r.Log.Warn("the memory could not be stored", "error", err)
		stored.Failure = wire.NewFailure(err)
	}
	r.rounds++
	r.place.Settle()
	return r.talk.send(ctx, &wire.Message{Body: &wire.Message_PagesStored{PagesStored: stored}})
}
