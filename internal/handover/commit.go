package handover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/line"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

// verdict is what the peer has recorded about a move.
type verdict int

const (
	undecided verdict = iota // it could not be asked, or does not know yet
	owned                    // "running": the container is the peer's
	owing                    // it runs there, and lacks memory that only the source has
	aborted                  // "aborted": its half is dead
)

// commit sends COMMIT and finds out what became of it. The error explains undecided and aborted.
func (p *Push) commit(ctx context.Context) (verdict, error) {
	p.Record.Enter(report.Resume)
	_ = failpoint.Hit(ctx, failpoint.SourceCommit)
	err := p.talk.send(ctx, &wire.Message{Body: &wire.Message_Commit{Commit: &wire.Commit{}}})
	_ = failpoint.Hit(ctx, failpoint.SourceCommitted)
	if err == nil {
		var v verdict
		if v, err = p.await(ctx); v != undecided {
			return v, err
		}
	}
	// A COMMIT whose sending failed may have arrived all the same: only the peer can tell.
	p.Log.Warn("no word after COMMIT; asking the peer", "error", err)
	p.Record.Warn("the peer gave no word after COMMIT; the container stays frozen while it is asked")
	p.lost = true
	return askUntil(ctx, p.Dial, p.Move, p.Retry)
}

// verdictLimit bounds the wait for the peer's word: it gives up at resumeLimit by itself, and then has to clear up.
const verdictLimit = resumeLimit + undoLimit + 5*time.Second

func (p *Push) await(ctx context.Context) (verdict, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, verdictLimit, fmt.Errorf("the peer did not say within %v whether it has the container", verdictLimit))
	defer cancel()
	m, err := p.talk.receive(ctx)
	p.written += time.Duration(min(m.GetDone().GetJournalUs(), uint64(verdictLimit.Microseconds()))) * time.Microsecond
	p.note(m.GetDone().GetFindings(), p.offer.GetDestination())
	return verdictOf(m, err)
}

// readVerdict waits for the peer's word.
func readVerdict(ctx context.Context, t *talk) (verdict, error) { return verdictOf(t.receive(ctx)) }

// verdictOf is the peer's word, or why there is none.
func verdictOf(m *wire.Message, err error) (verdict, error) {
	switch {
	case err != nil:
		return undecided, err
	case m.GetDone().GetOwedPages() > 0:
		return owing, nil
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
		if v != undecided || isHopeless(err) {
			return v, err
		}
		select {
		case <-time.After(askInterval):
		case <-ctx.Done():
			return undecided, fmt.Errorf("ask the peer: %w", err)
		}
	}
}

func askOnce(ctx context.Context, dial Dial, move string) (verdict, error) {
	session, err := dial(ctx, ToAsk)
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
	result.DowntimeMS, result.JournalMS = p.Record.Downtime(), report.Milliseconds(p.written)
	p.Record.Leave()
	p.endTurn()
	_ = failpoint.Hit(ctx, failpoint.SourceDone)
	var past *Past
	switch v {
	case owned:
		past = p.past()
		err = p.letGo(ctx)
	case owing:
		p.Container.SayMoved(ctx)
		if err = p.follow(ctx); err != nil { // the peer may be wrong, but what it does not have is here
			result.Outcome = report.Unknown
			err = p.unknown(err, true)
		} else {
			err = p.letGo(ctx)
		}
		result.Mode, result.Rounds, result.BytesSent = string(p.mode), p.told, p.sent+p.session.Sent()
	case aborted:
		result.Outcome = report.Kept
		thawErr := p.held.Rollback(ctx)
		result.DowntimeMS = p.Record.Downtime()
		if errors.Is(thawErr, ErrStillFrozen) {
			result.Outcome = report.Unknown
		} else {
			thawErr = errors.Join(thawErr, p.Journal.Append(journal.RolledBack, "the peer aborted"))
		}
		err = errors.Join(err, thawErr)
	default:
		result.Outcome, err = report.Unknown, p.unknown(err, false)
	}
	if p.courier != nil {
		p.courier.stop()
	}
	if cerr := p.closeMemory(); cerr != nil {
		p.Log.Debug("let go of the memory", "error", cerr)
	}
	p.talk.close()
	if cerr := p.session.Close(); cerr != nil {
		p.Log.Debug("close session", "error", cerr)
	}
	if err != nil {
		result.Error = line.Of(err)
	}
	owed := result.Outcome == report.Unknown && p.owed.Pages > 0
	return &Attempt{Result: result, Err: err, Owed: owed, Past: past}
}

func (p *Push) unknown(err error, owing bool) error {
	return unknown(err, owing, p.hello.GetContainer(), p.hello.GetSource())
}

// letGo removes the source's copy: it is the peer's now, so whatever fails here is a leftover, not a failed move.
func (p *Push) letGo(ctx context.Context) error {
	if err := p.held.Commit(ctx); err != nil {
		p.Log.Warn("end CRIU's dump", "error", err)
	}
	_ = failpoint.Hit(ctx, failpoint.SourceKilled)
	if err := p.Journal.Append(journal.Done, ""); err != nil {
		p.Record.Warn(line.Of(err))
	}
	_ = failpoint.Hit(ctx, failpoint.SourceDelete)
	if err := remove(ctx, p.Container, p.Keep); err != nil {
		return fmt.Errorf("moved, but the source's remains could not be removed: %w", err)
	}
	return nil
}

// remove ends the source's copy; with keep it stays, dead.
func remove(ctx context.Context, c Container, keep bool) error {
	if keep {
		return c.Stop(ctx)
	}
	return c.Destroy(ctx)
}
