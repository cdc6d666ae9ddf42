package handover

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/livemigrate/migrate/internal/wire"
)

// Lane carries page frames to the peer. It may be used by several goroutines.
type Lane interface {
	// Send sends the parts, 1 byte to wire.MaxPages together, as one page frame. It blocks while the peer does not read. A
	// frame that has begun goes out whole, whatever ctx does: what it shares the connection with must still get through.
	Send(ctx context.Context, parts ...[]byte) error
}

// pageLanes counts what a Memory sends: the peer is told how much has to be there.
type pageLanes struct {
	lanes  []Lane
	frames atomic.Uint64 // since the last barrier
	broken atomic.Pointer[error]
}

// newPageLanes makes Memory's lanes of the session's. ctx is the move's own.
func newPageLanes(ctx context.Context, channels []Channel) *pageLanes {
	all := new(pageLanes)
	for _, ch := range channels {
		all.lanes = append(all.lanes, &pageLane{channel: ch, move: ctx, all: all})
	}
	return all
}

// failure is why a lane is of no use any more, or nil.
func (p *pageLanes) failure() error {
	if err := p.broken.Load(); err != nil {
		return fmt.Errorf("%w: send memory: %w", ErrLinkLost, *err)
	}
	return nil
}

type pageLane struct {
	channel Channel
	move    context.Context // of the move, not of a call: a frame is not cut off when a Memory gives up
	all     *pageLanes
}

func (l *pageLane) Send(ctx context.Context, parts ...[]byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	if size == 0 || size > wire.MaxPages {
		return fmt.Errorf("send pages: a frame of %d bytes, at most %d", size, wire.MaxPages)
	}
	framed := make([][]byte, 0, len(parts)+1)
	framed = append(framed, wire.AppendPagesHeader(nil))
	if err := l.channel.Send(l.move, append(framed, parts...)...); err != nil {
		l.all.broken.CompareAndSwap(nil, &err)
		return err
	}
	l.all.frames.Add(1)
	return nil
}

// shared is a channel that several goroutines send on in turns.
type shared struct {
	Channel
	turn chan struct{}
}

func shareAll(channels []Channel) []Channel {
	var all []Channel
	for _, ch := range channels {
		all = append(all, shared{ch, make(chan struct{}, 1)})
	}
	return all
}

func (c shared) Send(ctx context.Context, parts ...[]byte) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
		return c.Channel.Send(ctx, parts...)
	case <-ctx.Done():
		return ctx.Err()
	}
}
