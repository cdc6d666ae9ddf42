package handover

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/internal/wire"
)

// absence is how a source whose link broke between rounds of memory comes back to the peer: by another session, which another
// goroutine has (see mend.go).
type absence struct {
	move, proof string
	patience    time.Duration
	back        chan *comeback
	over        chan struct{} // nobody is waited for any more

	once     sync.Once
	forsaken chan struct{} // the source has said that it does not come back
}

// comeback is a session over which the source goes on.
type comeback struct {
	session Session
	talk    *talk
	heard   func(func(error)) // who is told of its end
	done    chan struct{}     // closed when the receiver does not need it any more
}

// maxAbsence bounds how long a source's move holds memory here that nobody sends any more.
const maxAbsence = 5 * time.Minute

// absenceMargin is how much longer it is waited for: it may notice later that the link is gone, and its last try takes its time.
const absenceMargin = 10 * time.Second

// allowAbsence makes the source welcome again, if it says that it would come.
func (r *Receive) allowAbsence() {
	retry := time.Duration(min(r.hello.GetRetryMs(), uint64(maxAbsence/time.Millisecond))) * time.Millisecond
	if r.pages == nil || retry == 0 {
		return
	}
	r.absence.Store(&absence{
		move: r.hello.GetMove(), proof: r.proof, patience: retry + absenceMargin,
		back: make(chan *comeback), over: make(chan struct{}), forsaken: make(chan struct{}),
	})
	r.leg = r.bell.begin(r.leg)
}

// endAbsence: there are no more rounds. The error says that the link was lost before.
func (r *Receive) endAbsence() error {
	a := r.absence.Swap(nil)
	if a == nil {
		return nil
	}
	close(a.over)
	return r.bell.end(r.leg)
}

// await waits for the source after the link was lost, and tells it what is here. An error is that of the move.
func (r *Receive) await(ctx context.Context, cause error) error {
	a := r.absence.Load()
	if a == nil || !errors.Is(cause, ErrLinkLost) || ctx.Err() != nil {
		return cause
	}
	r.Log.Warn("the link to the source is lost; keeping what it has sent", "for", a.patience, "error", cause)
	r.bell.silence(cause)
	r.hangUp()
	_ = r.lanes.Wait() // they ended with the session
	patience, cancel := context.WithTimeoutCause(ctx, a.patience, fmt.Errorf("%w: it was not back within %v", cause, a.patience))
	defer cancel()
	wanted := make(chan bool, 1)
	go func() { wanted <- r.place.Yield(patience) }()
	select {
	case back := <-a.back:
		cancel()
		<-wanted
		return r.goOn(ctx, back)
	case <-a.forsaken:
	case yes := <-wanted:
		wanted <- yes
		if yes {
			cause = fmt.Errorf("%w: another move of the container has come", cause)
		}
	case <-patience.Done():
		cause = context.Cause(patience)
	}
	if r.absence.CompareAndSwap(a, nil) { // who comes now has to hear how it ended
		close(a.over)
	}
	cancel()
	<-wanted // the place is at peace
	return cause
}

// goOn takes rounds over another session, after the source has learnt what is here.
func (r *Receive) goOn(ctx context.Context, back *comeback) error {
	r.session, r.talk, r.back = back.session, back.talk, back
	r.leg = r.bell.begin(ctx)
	back.heard(r.bell.ring)
	r.pages.restart()
	r.openLanes()
	r.Log.Info("the link to the source is back", "rounds", r.rounds)
	stored := &wire.RoundsStored{Rounds: r.rounds}
	if err := r.talk.send(r.leg, &wire.Message{Body: &wire.Message_RoundsStored{RoundsStored: stored}}); err != nil {
		return r.await(ctx, err)
	}
	if err := tellStored(r.leg, r.talk, 0, r.place.Stored); err != nil {
		return r.await(ctx, because(r.leg, err))
	}
	return nil
}

// tellStored tells which pages have come, from a slot on.
func tellStored(ctx context.Context, t *talk, slot uint64, stored func(slot uint64, size int) []byte) error {
	for {
		held := &wire.PagesHeld{Slot: slot, Bits: stored(slot, wire.MaxHeld)}
		slot += uint64(len(held.GetBits())) * 8
		held.More = len(held.GetBits()) == wire.MaxHeld
		err := t.send(ctx, &wire.Message{Body: &wire.Message_PagesHeld{PagesHeld: held}})
		if err != nil || !held.GetMore() {
			return err
		}
	}
}

// hangUp ends the session there is.
func (r *Receive) hangUp() {
	r.talk.close()
	_ = r.session.Close()
	if r.back != nil {
		close(r.back.done)
		r.back = nil
	}
}

// openLanes takes what the session's lanes bring.
func (r *Receive) openLanes() {
	r.lanes = new(errgroup.Group)
	ctx := r.leg
	for _, lane := range r.session.Images() {
		r.lanes.Go(func() error {
			err := r.drain(ctx, lane)
			if err != nil {
				r.bell.ring(err)
				if r.debtor.Load() != nil {
					_ = r.session.Close() // the source makes another
				}
			}
			return err
		})
	}
}

// absent is the absence of a move, for its own source.
func (r *Receive) absent(move string, session Session) *absence {
	if r == nil {
		return nil
	}
	a := r.absence.Load()
	if a == nil || a.move != move || subtle.ConstantTimeCompare([]byte(a.proof), []byte(session.Proof())) == 0 {
		return nil
	}
	return a
}

// forsake: the source gives the move up.
func (a *absence) forsake() { a.once.Do(func() { close(a.forsaken) }) }

// noticeLimit is how long a broken link may take to be noticed here, when the source is back already.
const noticeLimit = 5 * time.Second

// give hands a session to the receiver, and returns true when that does not need it any more; false if it did not want it.
func (a *absence) give(ctx context.Context, back *comeback) bool {
	ctx, cancel := context.WithTimeout(ctx, noticeLimit)
	defer cancel()
	select {
	case a.back <- back:
		<-back.done
		return true
	case <-a.over:
	case <-ctx.Done():
	}
	return false
}
