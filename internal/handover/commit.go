package handover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

// verdict is what the peer has recorded about a move.
type verdict int

const (
	undecided verdict = iota // it could not be asked, or does not know yet
	owned                    // "running": the container is the peer's
	aborted                  // "aborted": its half is dead
)

// commit sends COMMIT and finds out what became of it. The error explains undecided and aborted.
func (p *Push) commit(ctx context.Context) (verdict, error) {
	p.Record.Enter(report.Resume)
	err := p.talk.send(ctx, &wire.Message{Body: &wire.Message_Commit{Commit: &wire.Commit{}}})
	if err == nil {
		var v verdict
		if v, err = readVerdict(ctx, p.talk); v != undecided {
			return v, err
		}
	}
	// A COMMIT whose sending failed may have arrived all the same: only the peer can tell.
	p.Log.Warn("link lost after COMMIT; asking the peer", "error", err)
	p.Record.Warn("the link broke after COMMIT; the container stays frozen while the peer is asked")
	return askUntil(ctx, p.Dial, p.Move, p.Retry)
}

// readVerdict waits for the peer's word.
func readVerdict(ctx context.Context, t *talk) (verdict, error) {
	m, err := t.receive(ctx)
	switch {
	case err != nil:
		return undecided, err
	case m.GetDone() != nil:
		return owned, nil
	case m.GetAborted() != nil:
		return aborted, m.GetAborted().GetCause().Err()
	case m.GetFailure() != nil:
		return undecided, m.GetFailure().Err()
	default:
		return undecided, fmt.Errorf("%w: %T at the wrong moment", wire.ErrMalformed, m.GetBody())
	}
}

// askInterval is the pause between two attempts to reach a peer. The service is down meanwhile, so it is short.
const askInterval = 500 * time.Millisecond

// askUntil asks the peer how the move ended, again and again until it says so or patience is over.
func askUntil(ctx context.Context, dial Dial, move string, patience time.Duration) (verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, max(patience, askInterval))
	defer cancel()
	for {
		v, err := askOnce(ctx, dial, move)
		if v != undecided {
			return v, err
		}
		select {
		case <-time.After(askInterval):
		case <-ctx.Done():
			return undecided, fmt.Errorf("%w: ask the peer: %w", ErrOutcomeUnknown, err)
		}
	}
}

func askOnce(ctx context.Context, dial Dial, move string) (verdict, error) {
	session, err := dial(ctx, true)
	if err != nil {
		return undecided, err
	}
	defer func() { _ = session.Close() }() // the answer is in, or the link was broken anyway
	t := newTalk(ctx, session.Control(), func(error) {})
	defer t.close()
	if err := t.send(ctx, &wire.Message{Body: &wire.Message_Ask{Ask: &wire.Ask{Move: move}}}); err != nil {
		return undecided, err
	}
	return readVerdict(ctx, t)
}

// finish ends a move whose COMMIT was sent.
func (p *Push) finish(ctx context.Context, v verdict, err error) *Attempt {
	result := p.result(report.Moved)
	result.DowntimeMS = p.Record.Downtime()
	p.Record.Leave()
	switch v {
	case owned:
		err = p.letGo(ctx)
	case aborted:
		result.Outcome = report.Kept
		err = errors.Join(err, p.held.Rollback(ctx))
		result.DowntimeMS = p.Record.Downtime()
		err = errors.Join(err, p.Journal.Append(journal.RolledBack, "the peer aborted"))
	default:
		result.Outcome = report.Unknown
	}
	p.talk.close()
	if cerr := p.session.Close(); cerr != nil {
		p.Log.Debug("close session", "error", cerr)
	}
	if err != nil {
		result.Error = err.Error()
	}
	return &Attempt{Result: result}
}

// letGo removes the source's copy: it is the peer's now, so whatever fails here is a leftover, not a failed move.
func (p *Push) letGo(ctx context.Context) error {
	if err := p.held.Commit(ctx); err != nil {
		p.Log.Warn("end CRIU's dump", "error", err)
	}
	if err := p.Journal.Append(journal.Done, ""); err != nil {
		p.Record.Warn(err.Error())
	}
	if p.Keep {
		return nil
	}
	if err := p.Container.Destroy(ctx); err != nil {
		return fmt.Errorf("moved, but the source's remains could not be removed: %w", err)
	}
	return nil
}
