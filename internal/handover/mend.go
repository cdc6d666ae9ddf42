package handover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/livemigrate/migrate/internal/line"
	"github.com/livemigrate/migrate/internal/wire"
)

// A link that breaks between rounds of memory is made again, and the rounds go on (peer's side: absence.go):
//
//  1. The source opens another session with the move's token, and sends Ask{rounds}.
//  2. The peer has kept what it has. It answers how many rounds it has acknowledged (RoundsStored), and which slots were stored
//     since (PagesHeld). So the source knows whether its last PagesSent was answered, and if not, which pages need not go again.
//  3. PagesSent{0}: both count from here.
//
// A peer that does not have it any more says so: then the move begins anew.

// errNotKept: the peer has nothing of the move any more.
var errNotKept = errors.New("the peer has not kept what it had")

// mendable tells whether the rounds can go on after they ended with err.
func (p *Push) mendable(ctx context.Context, err error) bool {
	return errors.Is(err, ErrLinkLost) && ctx.Err() == nil && p.memory != nil && p.Retry > 0
}

// mend opens another session and learns what the peer has. The container has all of its processor time meanwhile. The error is
// that of the move.
func (p *Push) mend(ctx context.Context, cause error) error {
	p.broke = time.Now()
	p.Log.Warn("the link broke between rounds of memory", "error", cause)
	p.Record.Warn("the link broke while memory was sent; making it again: " + line.Of(cause))
	p.bell.silence(cause)
	p.talk.close()
	_ = p.session.Close() // it is broken
	p.endTurn()
	if err := p.unslow(ctx, 1); err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, p.Retry)
	defer cancel()
	for {
		err := p.mendOnce(ctx)
		switch {
		case err == nil:
			p.Log.Info("the link is back; the rounds go on")
			p.broke = time.Time{} // the next break has all the patience again
			return p.unslow(ctx, p.slowed.part)
		case ctx.Err() != nil:
			return because(ctx, err)
		case errors.Is(err, errNotKept):
			return fmt.Errorf("%w: %w", ErrLinkLost, err)
		case errors.Is(err, wire.ErrMalformed):
			return err
		}
		p.Log.Debug("can't reach the peer", "error", err)
		select {
		case <-time.After(askInterval):
		case <-patience.Done():
			return because(ctx, fmt.Errorf("%w, and could not be made again: %w", ErrLinkLost, err))
		}
	}
}

// unslow gives a container that was slowed down another part of its processor time.
func (p *Push) unslow(ctx context.Context, part float64) error {
	if p.slowed.part == 0 {
		return nil
	}
	return p.Container.Slow(ctx, part)
}

func (p *Push) mendOnce(ctx context.Context) (err error) {
	session, err := p.Dial(ctx, ToFollow) // the last try has its time, too
	if err != nil {
		return err
	}
	t := newTalk(ctx, session.Control(), p.bell.ring)
	defer func() {
		if err != nil {
			t.close()
			_ = session.Close()
		}
	}()
	limited, cancel := context.WithTimeout(ctx, heldLimit)
	defer cancel()
	if err := t.send(limited, &wire.Message{Body: &wire.Message_Ask{Ask: &wire.Ask{Move: p.Move, Rounds: true}}}); err != nil {
		return err
	}
	stored, have, err := readStored(limited, t, p.barriers, p.memory.Top())
	if err != nil {
		return err
	}
	p.memory.Regain(stored || !p.open, have)
	p.open = false // the next round sends what it lacks
	if stored {
		p.barriers++
	}
	p.sent += p.session.Sent()
	p.talk, p.session = t, session
	return nil
}

// readStored reads how far the peer has come: whether it has stored the last round, after so many that it has acknowledged, and
// what it has of the next one, in slots up to top.
func readStored(ctx context.Context, t *talk, acknowledged, top uint64) (last bool, have []Slots, err error) {
	m, err := t.receive(ctx)
	if err != nil {
		return false, nil, err
	}
	switch {
	case m.GetRoundsStored() != nil:
	case m.GetFailure() != nil && !errors.Is(m.GetFailure().Err(), wire.ErrUnknownMove):
		return false, nil, m.GetFailure().Err() // it may say something else the next time
	default:
		return false, nil, errNotKept
	}
	rounds := m.GetRoundsStored().GetRounds()
	if rounds != acknowledged && rounds != acknowledged+1 {
		return false, nil, fmt.Errorf("%w: %d rounds, %d were sent", errNotKept, rounds, acknowledged)
	}
	_, have, err = readHeld(ctx, t, top)
	return rounds != acknowledged, have, err
}
