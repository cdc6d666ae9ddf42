package handover

import (
	"context"
	"time"
)

// Turns keeps the stops of a host's containers apart. Stops that meet, or that meet the work for other moves, share the
// processors of both hosts, and each is as long as all of them; one after the other they are short.
//
// Nothing but time depends on it: whoever has waited for long enough goes on.
type Turns interface {
	// Take waits until no other container of this host stands still for a move, and lets none until next is called.
	Take(ctx context.Context) (next func(), waited time.Duration)
	// Yield waits while one does.
	Yield(ctx context.Context)
}

// lateRounds are those that may be made with the turn: one over what was written while it was waited for, and one over what was
// written during that.
const lateRounds = 2

// worthARound is from how much waiting on what was written meanwhile is sent before the stop.
const worthARound = 10 * time.Millisecond

// takeTurn returns how long it took. The turn is over when the move has been decided.
func (p *Push) takeTurn(ctx context.Context) time.Duration {
	if p.Turns == nil || p.next != nil {
		return 0
	}
	next, waited := p.Turns.Take(ctx)
	p.next = next
	if waited > worthARound {
		p.Log.Debug("waited for another container's stop", "took", waited)
	}
	return waited
}

// endTurn ends one that was taken. It may be called more than once.
func (p *Push) endTurn() {
	if p.next != nil {
		p.next()
		p.next = nil
	}
}

// yield is called before work that has no hurry.
func (p *Push) yield(ctx context.Context) {
	if p.Turns != nil && p.next == nil {
		p.Turns.Yield(ctx)
	}
}
