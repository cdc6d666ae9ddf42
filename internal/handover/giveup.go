package handover

import (
	"context"
	"errors"
	"time"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/line"
	"github.com/livemigrate/migrate/internal/wire"
)

// giveUp clears everything up, records it, and only then tells the source. It returns the reason.
func (r *Receive) giveUp(ctx context.Context, reason error, undo *rollback) error {
	r.Log.Info("giving up the move", "reason", reason)
	r.stopLanes()         // nothing may write images while their directory is removed
	if r.journal == nil { // refused: there is nothing to clear up but the reservation
		r.tell(ctx, &wire.Message{Body: &wire.Message_Failure{Failure: wire.NewFailure(reason)}})
		return errors.Join(reason, undo.Run(ctx, r.Log), r.close())
	}
	if r.journal.Last() == journal.Begin && !errors.Is(reason, errAbortedByPeer) {
		// Bad news first: the source may be in the middle of a long pass.
		r.tell(ctx, &wire.Message{Body: &wire.Message_Failure{Failure: wire.NewFailure(reason)}})
	}
	if err := undo.Run(ctx, r.Log); err != nil {
		// Something of the half-made container may be alive: "aborted" would be a lie that costs a second copy.
		return errors.Join(reason, err, r.close())
	}
	if err := r.journal.Append(journal.Aborted, line.Of(reason)); err != nil {
		return errors.Join(reason, err, r.close())
	}
	r.verdict = &wire.Message{Body: &wire.Message_Aborted{Aborted: &wire.Aborted{Cause: wire.NewFailure(reason)}}}
	r.tell(ctx, r.verdict)
	r.linger(ctx)
	return errors.Join(reason, r.close())
}

// tell sends a last word. A link that is gone is no error: the source asks again.
func (r *Receive) tell(ctx context.Context, m *wire.Message) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := r.talk.send(ctx, m); err != nil {
		r.Log.Debug("could not tell the source", "error", err)
	}
}

// linger waits a moment for the source to hang up, so that the last word is not lost in a connection that is reset.
func (r *Receive) linger(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for {
		if _, err := r.talk.receive(ctx); err != nil {
			return
		}
	}
}

// stopLanes returns when no image is written any more.
func (r *Receive) stopLanes() {
	r.stop()
	if d := r.debtor.Load(); d != nil {
		d.stop()
	}
	if r.lanes != nil {
		_ = r.lanes.Wait() // it was cut off
	}
}

func (r *Receive) close() error {
	r.stopLanes()
	var err error
	if r.images != nil {
		err = r.images.Close()
	}
	if r.journal != nil {
		err = errors.Join(err, r.journal.Close())
	}
	return err
}
