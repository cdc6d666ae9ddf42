package handover

import (
	"context"
	"errors"
	"sync"
)

// bell tells a move what ends its session, wherever that is noticed. While there is a leg, a part of the move that can go on over
// another session, a lost link ends only that.
type bell struct {
	move context.CancelCauseFunc

	mu   sync.Mutex
	leg  context.CancelCauseFunc // nil: none
	deaf bool                    // between two sessions
}

func newBell(move context.CancelCauseFunc) *bell { return &bell{move: move} }

// ring says that the session is of no use any more.
func (b *bell) ring(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.deaf:
	case b.leg != nil && errors.Is(err, ErrLinkLost):
		b.leg(err)
	default:
		b.move(err)
	}
}

// begin begins a leg. Its context ends with the link, or with ctx.
func (b *bell) begin(ctx context.Context) context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	ctx, b.leg = context.WithCancelCause(ctx)
	b.deaf = false
	return ctx
}

// end ends the leg: from here on a lost link ends the move. The error says that it was lost before.
func (b *bell) end(leg context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leg = nil
	return because(leg, leg.Err())
}

// silence ends the leg with its session. What is heard of that one from here on counts no more, until another begins.
func (b *bell) silence(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deaf = true
	if b.leg != nil {
		b.leg(err)
	}
}
