package handover

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/wire"
)

// Desk answers resumed sessions at the peer, where the source asks how a move ended, for one process.
type Desk struct {
	Host     Host
	Journals string
	Log      *slog.Logger
	// Adopted is called, at most once, with a container that lacks memory and whose process is gone: this one's receives it from
	// now on. The caller calls Settle on it.
	Adopted func(*Receive)

	mu      sync.Mutex
	receive *Receive
}

// Receives says what this process receives.
func (d *Desk) Receives(r *Receive) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.receive = r
}

// Answer serves a session. When the process that received the container is gone, its unfinished half is destroyed first, so
// that "aborted" is true. A container that lacks memory gets it over this session. The caller closes the session.
func (d *Desk) Answer(ctx context.Context, session Session) error {
	var told ear
	t := newPeersTalk(ctx, session.Control(), told.hear)
	defer t.close()
	ask, err := firstWord(ctx, t, (*wire.Message).GetAsk)
	if err != nil {
		return err
	}
	if ask.GetRounds() || ask.GetFollow() {
		if err := laden(session); err != nil {
			return err
		}
	}
	if a := d.received().absent(ask.GetMove(), session); a != nil {
		if !ask.GetRounds() {
			a.forsake()
		} else if a.give(ctx, &comeback{session: session, talk: t, heard: told.set, done: make(chan struct{})}) {
			return nil
		}
	}
	var verdict *wire.Message
	debtor, err := d.debtor(ctx, ask.GetMove(), session)
	if debtor != nil {
		return debtor.answer(ctx, t, session, ask.GetFollow())
	}
	if err == nil {
		verdict, err = settleFor(ctx, d.Host, d.Journals, ask.GetMove(), session)
	}
	if err != nil {
		verdict = &wire.Message{Body: &wire.Message_Failure{Failure: wire.NewFailure(err)}}
	}
	if err := t.send(ctx, verdict); err != nil {
		return err
	}
	awaitHangUp(ctx, t)
	return nil
}

// awaitHangUp waits, not for ever, until the source has read what it was told.
func awaitHangUp(ctx context.Context, t *talk) {
	ctx, cancel := context.WithTimeout(ctx, greetLimit)
	defer cancel()
	_, _ = t.receive(ctx)
}

// ear hears the end of a talk for somebody who comes later.
type ear struct {
	to atomic.Pointer[func(error)]
}

func (e *ear) set(to func(error)) { e.to.Store(&to) }

func (e *ear) hear(err error) {
	if to := e.to.Load(); to != nil {
		(*to)(err)
	}
}

func (d *Desk) received() *Receive {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.receive
}

// debtor is that of the move, if it is one of its own source's that lacks memory.
func (d *Desk) debtor(ctx context.Context, move string, session Session) (*debtor, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.receive != nil {
		if debtor := d.receive.owes(move, session); debtor != nil {
			return debtor, nil
		}
		return nil, d.receive.lost(move)
	}
	story, err := journal.Read(d.Journals, move, journal.Peer)
	if err != nil || story.Last() != journal.Owing || story.Rebooted() || !isSource(&story.Move, session) {
		return nil, nil // that is for settleFor to tell
	}
	r, err := d.adopt(ctx, story)
	if errors.Is(err, wire.ErrPaid) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d.receive = r
	d.Adopted(r)
	return r.debtor.Load(), nil
}

// adopt takes over from a process that is gone.
func (d *Desk) adopt(ctx context.Context, story *journal.Story) (_ *Receive, err error) {
	j, err := journal.Open(story.Path)
	if errors.Is(err, journal.ErrLocked) {
		return nil, wire.ErrBusy
	}
	if err != nil {
		return nil, err
	}
	adopted, err := d.Host.Adopt(ctx, story.Move)
	if errors.Is(err, wire.ErrPaid) { // its process had no time to write that
		if failed := errors.Join(j.Append(journal.Running, "the process that received it was gone"), j.Close()); failed != nil {
			return nil, failed
		}
		return nil, err
	}
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	r := &Receive{
		Host: d.Host, Journals: d.Journals, Log: d.Log, proof: story.Move.Token, journal: j, adopted: adopted,
		hello: &wire.Hello{Move: story.Move.Name, Container: story.Move.Container},
		pages: newPageReceiver(adopted.Pages), lanes: new(errgroup.Group), stop: func() {},
	}
	r.pages.follow()
	ctx, quit := context.WithCancel(context.WithoutCancel(ctx))
	debtor := &debtor{receive: r, debt: adopted, owed: adopted.Owed(), quit: quit, ended: make(chan struct{}), open: true}
	debtor.begin(ctx)
	r.Log.Info("the process that received the container is gone; its memory goes on following", "container", r.Container(), "pages", adopted.Missing())
	return r, nil
}

// Settle is the rest of the move of an adopted container. It returns when nothing of its memory is missing, or why that is not to be.
func (r *Receive) Settle(ctx context.Context) error {
	d := r.debtor.Load()
	d.settle(context.WithoutCancel(ctx))
	return errors.Join(d.debt.Err(), r.adopted.Finish(ctx), r.close())
}

// isSource tells whether a session is that of the move's own source.
func isSource(m *journal.Move, session Session) bool {
	return m.Token == "" || subtle.ConstantTimeCompare([]byte(m.Token), []byte(session.Proof())) != 0
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
	if !isSource(&story.Move, session) {
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
		return nil, wire.ErrFollowing
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
