package handover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/report"
)

// Force says which side is gone for good, when the other can't be asked. Whoever gives it has fenced that side.
type Force int

// The choices.
const (
	NoForce     Force = iota
	ForceSource       // the peer is gone: the container runs on here
	ForcePeer         // it runs at the peer: the copy here goes
)

// Resolve ends a move whose process is gone, at the source, from its journal and the peer's answer.
type Resolve struct {
	Story     *journal.Story
	Container Container // nil when the container is gone already
	Dial      Dial
	Patience  time.Duration // how long the peer is asked
	Force     Force
	Log       *slog.Logger
}

// Run returns Moved or Kept, or Unknown with ErrOutcomeUnknown when the peer could not be asked; then nothing was changed.
// Kept with ErrGone when there is nothing left to run on.
// journal.ErrLocked means that the move's own process is alive and will end it.
func (r *Resolve) Run(ctx context.Context) (report.Outcome, error) {
	j, err := journal.Open(r.Story.Path)
	if err != nil {
		return report.Unknown, err
	}
	defer func() { _ = j.Close() }()

	switch j.Last() {
	case journal.Begin: // COMMIT was never sent
		return r.revive(ctx, j, "the move's process was gone before COMMIT")
	case journal.RolledBack:
		return r.revive(ctx, j, "again")
	case journal.Done:
		return r.destroy(ctx, j, "again")
	}
	switch r.Force {
	case ForceSource:
		return r.revive(ctx, j, "forced: the peer is gone")
	case ForcePeer:
		return r.destroy(ctx, j, "forced: it runs at the peer")
	}
	v, err := askUntil(ctx, r.Dial, r.Story.Move.Name, r.Patience)
	switch v {
	case owned:
		return r.destroy(ctx, j, "the peer has it")
	case aborted:
		return r.revive(ctx, j, "the peer aborted")
	case owing:
		if err := r.follow(ctx); err != nil {
			return report.Unknown, unknown(err, true, r.Story.Move.Container, "")
		}
		return r.destroy(ctx, j, "the peer has all of its memory")
	default:
		return report.Unknown, unknown(err, false, r.Story.Move.Container, "")
	}
}

// follow goes on sending memory to the container that runs at the peer already.
func (r *Resolve) follow(ctx context.Context) (err error) {
	if r.Container == nil {
		return ErrGone
	}
	r.Container.SayMoved(ctx) // the move's own process may have been killed before it did
	p := &Push{Move: r.Story.Move.Name, Dial: r.Dial, Retry: r.Patience, Mode: PostCopy, Record: report.NewRecorder(nil), Log: r.Log, lost: true}
	if p.memory, err = r.Container.Remainder(ctx); err != nil {
		return err
	}
	err = p.follow(ctx)
	if p.session != nil {
		p.courier.stop()
		p.talk.close()
		_ = p.session.Close()
	}
	return errors.Join(err, p.closeMemory())
}

func (r *Resolve) revive(ctx context.Context, j *journal.Journal, why string) (report.Outcome, error) {
	if r.Container == nil {
		if err := j.Append(journal.RolledBack, why+"; the container itself is gone"); err != nil {
			return report.Unknown, err
		}
		return report.Kept, ErrGone
	}
	if err := r.Container.Revive(ctx); err != nil {
		return report.Unknown, fmt.Errorf("make the container run on: %w", err)
	}
	if err := j.Append(journal.RolledBack, why); err != nil || r.Force == ForceSource {
		return report.Kept, err
	}
	// The peer may be waiting for a source that was only cut off: what it has would fill its memory meanwhile.
	if v, err := askUntil(ctx, r.Dial, r.Story.Move.Name, clearLimit); v != aborted {
		r.Log.Debug("the peer was not told that the container runs on here", "error", err)
	}
	return report.Kept, nil
}

func (r *Resolve) destroy(ctx context.Context, j *journal.Journal, why string) (report.Outcome, error) {
	if err := j.Append(journal.Done, why); err != nil {
		return report.Unknown, err
	}
	if r.Container == nil {
		return report.Moved, nil
	}
	if err := remove(ctx, r.Container, r.Story.Move.Keep); err != nil {
		return report.Moved, fmt.Errorf("remove the source's copy: %w", err)
	}
	return report.Moved, nil
}
