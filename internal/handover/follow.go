package handover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

// courier sends pages that tasks at the peer wait for. It has the lane of the files to itself: those are through.
type courier struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // after done
}

// newCourier starts one on the session. ctx gives values only.
func newCourier(ctx context.Context, p *Push) *courier {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &courier{cancel: cancel, done: make(chan struct{})}
	t, memory := p.talk, p.memory
	lane := newPageLanes(ctx, []Channel{p.session.Urgent()}).lanes[0]
	go func() {
		defer close(c.done)
		for {
			select {
			case slots := <-t.requests:
				if _, err := memory.Hurry(ctx, slots, lane); err != nil {
					if ctx.Err() == nil {
						c.err = err
					}
					return
				}
			case <-t.done:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return c
}

// stop ends it; it returns when no page is being read any more.
func (c *courier) stop() {
	c.cancel()
	<-c.done
}

// follow sends the rest of the memory to the container that runs at the peer, and returns nil when the peer has recorded
// that nothing is missing. A link that breaks is made again: until then tasks there wait for what they lack. After an error the
// processes here are the last that have the rest: Resolve goes on.
func (p *Push) follow(ctx context.Context) error {
	if p.memory == nil || p.courier == nil && p.session != nil {
		return fmt.Errorf("%w: the peer lacks memory that was not owed", wire.ErrMalformed)
	}
	p.mode = p.Mode
	p.Record.Enter(report.Follow)
	_ = failpoint.Hit(ctx, failpoint.SourceFollow)
	defer p.Record.Leave()
	broken := p.lost
	for {
		if !broken {
			err := p.pay(ctx)
			if !errors.Is(err, ErrLinkLost) {
				return err
			}
			p.Log.Warn("the link broke while memory follows", "error", err)
			p.Record.Warn("the link broke while memory follows: what the container lacks waits for the link; making it again")
		}
		done, err := p.rejoin(ctx)
		if done || err != nil {
			return err
		}
		broken = false
	}
}

// pay sends what is owed over the session there is.
func (p *Push) pay(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t, courier := p.talk, p.courier
	go func() { // the lanes may take longer to notice
		select {
		case <-t.done:
			cancel(fmt.Errorf("%w: %w", ErrLinkLost, t.err))
		case <-courier.done:
			if courier.err != nil {
				cancel(courier.err)
			}
		case <-ctx.Done():
		}
	}()
	work, workCtx := errgroup.WithContext(ctx)
	lanes := newPageLanes(ctx, meterAll(shareAll(p.session.Images()), &meter{total: p.owed.Pages * pageSize, record: p.Record}))
	work.Go(func() error {
		began := time.Now()
		round, err := p.memory.Follow(workCtx, lanes.lanes)
		if lost := lanes.failure(); lost != nil {
			return lost
		}
		if err == nil {
			p.tell(round, time.Since(began), &decision{})
		}
		return err
	})
	work.Go(func() error {
		for {
			done, err := expect(workCtx, t, (*wire.Message).GetDone)
			if err != nil || done.GetOwedPages() == 0 {
				return err
			}
		}
	})
	err := work.Wait()
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	return err
}

// rejoin opens another session and learns what the peer lacks. It tries for as long as was asked for, until it has one, or
// until the peer says that there is no more to do: done, or an error.
func (p *Push) rejoin(ctx context.Context) (done bool, err error) {
	if p.session != nil { // it is broken
		p.courier.stop()
		p.talk.close()
		_ = p.session.Close()
	}
	patience, cancel := context.WithTimeout(ctx, max(p.Retry, askInterval))
	defer cancel()
	for {
		v, err := p.rejoinOnce(ctx, patience)
		switch {
		case v == owned:
			return true, nil
		case v == owing && err == nil:
			p.Log.Info("the link is back; memory goes on following")
			return false, nil
		case isHopeless(err), errors.Is(err, wire.ErrUnknownMove), v == aborted:
			return false, err
		}
		p.Log.Debug("can't reach the peer", "error", err)
		select {
		case <-time.After(askInterval):
		case <-patience.Done():
			return false, fmt.Errorf("make the link again: %w", err)
		}
	}
}

// heldLimit bounds the wait for a peer that has answered the first question.
const heldLimit = 30 * time.Second

func (p *Push) rejoinOnce(ctx, patience context.Context) (_ verdict, err error) {
	session, err := p.Dial(patience, ToFollow)
	if err != nil {
		return undecided, err
	}
	t := newTalk(ctx, session.Control(), func(error) {})
	defer func() {
		if err != nil {
			t.close()
			_ = session.Close()
		}
	}()
	limited, cancel := context.WithTimeout(ctx, heldLimit)
	defer cancel()
	if err := t.send(limited, &wire.Message{Body: &wire.Message_Ask{Ask: &wire.Ask{Move: p.Move, Follow: true}}}); err != nil {
		return undecided, err
	}
	v, err := readVerdict(limited, t)
	switch v {
	case owing:
	case owned:
		p.adopt(ctx, session, t)
		return owned, nil
	default:
		if err == nil {
			err = ErrOutcomeUnknown
		}
		return v, err
	}
	slot, have, err := readHeld(limited, t, p.memory.Top())
	if err != nil {
		return undecided, err
	}
	p.memory.Recall(slot, have)
	p.adopt(ctx, session, t)
	return owing, nil
}

// adopt goes on over another session.
func (p *Push) adopt(ctx context.Context, session Session, t *talk) {
	if p.session != nil {
		p.sent += p.session.Sent()
	}
	p.talk, p.session = t, session
	p.courier = newCourier(ctx, p)
}

// readHeld reads which of the pages from a slot on the peer has. One message goes on where the one before it ended, and none tells
// of a slot behind top: so it is bounded by what was sent.
func readHeld(ctx context.Context, t *talk, top uint64) (first uint64, have []Slots, err error) {
	for next := uint64(0); ; {
		held, err := expect(ctx, t, (*wire.Message).GetPagesHeld)
		if err != nil {
			return 0, nil, err
		}
		if next == 0 {
			first = held.GetSlot()
			next = first
		}
		switch {
		case held.GetSlot() != next || first > top:
			return 0, nil, fmt.Errorf("%w: pages from slot %d on, not %d", wire.ErrMalformed, held.GetSlot(), next)
		case held.GetMore() && (len(held.GetBits()) == 0 || next > top):
			return 0, nil, fmt.Errorf("%w: more pages than were sent", wire.ErrMalformed)
		}
		next += 8 * uint64(len(held.GetBits()))
		for j, b := range held.GetBits() {
			for i := range uint64(8) {
				if b>>i&1 == 0 {
					continue
				}
				slot := held.GetSlot() + 8*uint64(j) + i
				if slot > top+7 { // the last byte may have more bits than there are pages
					return 0, nil, fmt.Errorf("%w: a page in slot %d, the last is %d", wire.ErrMalformed, slot, top)
				}
				if slot > top {
					continue
				}
				if n := len(have); n > 0 && have[n-1].First+have[n-1].Pages == slot {
					have[n-1].Pages++
					continue
				}
				have = append(have, Slots{First: slot, Pages: 1})
			}
		}
		if !held.GetMore() {
			return first, have, nil
		}
	}
}
