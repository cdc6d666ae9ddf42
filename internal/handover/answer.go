package handover

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/wire"
)

// Answer serves a resumed session at the peer: the source asks how a move ended. When the process that received the
// container is gone, its unfinished half is destroyed first, so that "aborted" is true. receive is what this process
// receives, nil for nothing: a container that lacks memory gets it over this session. The caller closes the session.
func Answer(ctx context.Context, host Host, journals string, session Session, receive *Receive) error {
	t := newTalk(ctx, session.Control(), func(error) {})
	defer t.close()
	ask, err := expect(ctx, t, (*wire.Message).GetAsk)
	if err != nil {
		return err
	}
	if d := receive.owes(ask.GetMove(), session); d != nil {
		return d.answer(ctx, t, session, ask.GetFollow())
	}
	verdict, err := settleFor(ctx, host, journals, ask.GetMove(), session)
	if err != nil {
		verdict = &wire.Message{Body: &wire.Message_Failure{Failure: wire.NewFailure(err)}}
	}
	if err := t.send(ctx, verdict); err != nil {
		return err
	}
	_, _ = t.receive(ctx) // the source hangs up once it has read
	return nil
}

// settleFor ends the move for its own source alone: a question destroys what was not finished.
func settleFor(ctx context.Context, host Host, journals, move string, session Session) (*wire.Message, error) {
	story, err := journal.Read(journals, move, journal.Peer)
	if errors.Is(err, os.ErrNotExist) {
		return nil, wire.ErrUnknownMove
	}
	if err != nil {
		return nil, err
	}
	if known := story.Move.Token; known != "" && subtle.ConstantTimeCompare([]byte(known), []byte(session.Proof())) == 0 {
		return nil, wire.ErrUnknownMove
	}
	return Settle(ctx, host, journals, move)
}

// Settle ends a move at the peer and says how: Done or Aborted. wire.ErrBusy when its process is still at work.
func Settle(ctx context.Context, host Host, journals, move string) (*wire.Message, error) {
	j, err := journal.Open(journal.Path(journals, move, journal.Peer))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, wire.ErrUnknownMove
	case errors.Is(err, journal.ErrLocked):
		return nil, wire.ErrBusy
	case err != nil:
		return nil, err
	}
	defer func() { _ = j.Close() }()
	story, err := journal.Read(journals, move, journal.Peer)
	if err != nil {
		return nil, err
	}
	switch j.Last() {
	case journal.Running:
		if story.Rebooted() { // its memory is gone here, and may be held by the frozen source: not ours to give up
			return nil, wire.ErrDiedHere
		}
		if err := host.Settle(ctx, story.Move); err != nil {
			return nil, err
		}
		return &wire.Message{Body: &wire.Message_Done{Done: &wire.Done{}}}, nil
	case journal.Owing:
		if story.Rebooted() {
			return nil, wire.ErrDiedHere
		}
		return nil, wire.ErrOwed
	case journal.Aborted:
	default:
		if err := host.Discard(ctx, story.Move); err != nil {
			return nil, fmt.Errorf("destroy the unfinished container: %w", err)
		}
		if err := j.Append(journal.Aborted, "the process that received it was gone"); err != nil {
			return nil, err
		}
	}
	cause := &wire.Failure{Code: "error", Text: "the move did not complete at the peer"}
	return &wire.Message{Body: &wire.Message_Aborted{Aborted: &wire.Aborted{Cause: cause}}}, nil
}
