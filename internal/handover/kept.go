package handover

import (
	"context"
	"errors"
	"time"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/line"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

// keep ends a move that failed before COMMIT: everything is undone and the container runs on. One that could not be thawed
// leaves the journal open for Resolve.
func (p *Push) keep(ctx context.Context, err error, undo *rollback) *Attempt {
	result := p.result(report.Kept)
	frozen := p.Record.Downtime() > 0
	lost := errors.Is(err, ErrLinkLost) && !frozen
	if p.offer == nil && isRefusal(err) {
		result.Outcome = report.Refused
	}
	if undone := undo.Run(ctx, p.Log); undone != nil {
		p.Log.Error("could not undo everything", "error", undone)
		err = errors.Join(err, undone)
	}
	result.DowntimeMS = p.thawed
	if errors.Is(err, ErrStillFrozen) {
		result.Outcome, result.DowntimeMS = report.Unknown, p.Record.Downtime()
	} else if jerr := p.Journal.Append(journal.RolledBack, line.Of(err)); jerr != nil {
		err = errors.Join(err, jerr)
	}
	result.Error = line.Of(err)
	return &Attempt{Result: result, Err: err, Unreached: p.session == nil, LinkLost: lost, Broke: p.broke}
}

// abort tells the peer to clear up and waits until it has: a second push finds nothing in its way. A peer that can't hear
// it clears up by itself, because the link is gone; one whose process is gone has to be asked.
func (p *Push) abort(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := p.talk.send(ctx, &wire.Message{Body: &wire.Message_Abort{Abort: &wire.Abort{Reason: "the source runs on"}}})
	for err == nil {
		var m *wire.Message
		if m, err = p.talk.receive(ctx); err == nil && m.GetAborted() != nil {
			return nil
		}
	}
	if !errors.Is(err, ErrLinkLost) {
		return err
	}
	if v, err := askUntil(ctx, p.Dial, p.Move, clearLimit); v != aborted {
		p.Log.Warn("the peer may not have cleared up; the next move, or \"migrate resolve\" there, makes it", "error", err)
	}
	return nil
}

// clearLimit bounds the wait for a peer that was lost, when the container runs on here.
const clearLimit = 5 * time.Second
