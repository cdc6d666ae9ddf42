package handover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/wire"
)

// Receive is the peer's side of one move.
type Receive struct {
	Host     Host
	Journals string // directory of the journals
	Root     string // state root, for the journal
	Limits   Limits
	Log      *slog.Logger

	session Session // nil for an adopted one
	proof   string  // of the source, as the session has it
	talk    *talk
	bell    *bell           // what ends them
	leg     context.Context // ends with the session, or with the move
	back    *comeback       // that the session came with; nil: it is the first one
	hello   *wire.Hello
	place   Place
	images  *imageReceiver
	feeds   bool                    // the place takes pages
	pages   *pageReceiver           // nil when it does not
	rounds  uint64                  // of memory, that were stored
	absence atomic.Pointer[absence] // nil when the source must not go
	debtor  atomic.Pointer[debtor]  // nil when all memory came before Commit
	listed  []*wire.ImageFile
	lanes   *errgroup.Group // the image lanes
	stop    context.CancelFunc
	journal *journal.Journal
	adopted Adopted // what is received, when another process has restored it
	gate    Gate
	verdict *wire.Message // Done or Aborted, once it is recorded
}

// Limits are what one move may take of the peer. Zero fields are no limits.
type Limits struct {
	Images uint64        // bytes of images
	Time   time.Duration // from Hello to Commit; what is committed is never ended
}

// Run receives the container that the session offers. It returns nil when the container runs here and is ours, and
// otherwise after everything has been cleared up, with the reason. The session is closed.
func (r *Receive) Run(ctx context.Context, session Session) error {
	settled := context.WithoutCancel(ctx)
	ctx, alarm := context.WithCancelCause(ctx)
	defer alarm(nil)
	r.bell, r.leg = newBell(alarm), ctx
	r.session, r.proof, r.talk = session, session.Proof(), newPeersTalk(ctx, session.Control(), r.bell.ring)
	r.stop = func() { alarm(nil) }
	defer r.hangUp()
	var undo rollback

	inTime := r.limit(alarm)
	err := r.take(ctx, &undo) // 1 to 6
	if errors.Is(err, errOnlyAsked) {
		r.linger(settled)
		return errors.Join(err, r.close())
	}
	if err == nil {
		_ = failpoint.Hit(ctx, failpoint.PeerReady)
		_, err = expect(ctx, r.talk, (*wire.Message).GetCommit) // 7
	}
	inTime()
	if err != nil {
		return r.giveUp(settled, because(ctx, err), &undo)
	}
	if err := r.resume(settled); err != nil { // 7, 8
		return r.giveUp(settled, err, &undo)
	}
	if d := r.debtor.Load(); d != nil {
		d.run(settled)
	} else {
		r.tell(settled, r.verdict)
		_ = failpoint.Hit(settled, failpoint.PeerDone)
		r.linger(settled)
	}
	return r.close()
}

// limit ends a move that is not committed in time. inTime is to be called when it is.
func (r *Receive) limit(alarm context.CancelCauseFunc) (inTime func()) {
	if r.Limits.Time <= 0 {
		return func() {}
	}
	timer := time.AfterFunc(r.Limits.Time, func() {
		alarm(fmt.Errorf("%w: the move was not over within %v (--max-time there)", wire.ErrFull, r.Limits.Time))
	})
	return func() { timer.Stop() }
}

// take does all that the source may still call off: afterwards the container waits, restored, at the gate.
func (r *Receive) take(ctx context.Context, undo *rollback) error {
	if err := r.greet(ctx, undo); err != nil { // 1
		return err
	}
	for r.gate == nil {
		m, err := r.talk.next(r.leg)
		if err == nil {
			err = r.do(ctx, m)
		}
		if err != nil {
			err = r.await(ctx, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// do does what a message asks for.
func (r *Receive) do(ctx context.Context, m *wire.Message) error {
	switch {
	case m.GetSyncTree() != nil: // 2, and the deltas of 5
		return r.sync(r.leg, m.GetSyncTree())
	case m.GetPrepare() != nil: // 3
		return r.prepare(ctx)
	case m.GetPagesSent() != nil: // after 3
		return r.round(r.leg, m.GetPagesSent())
	case m.GetFrozen() != nil: // 4
		r.Log.Debug("frozen at the source")
		return r.endAbsence()
	case m.GetImages() != nil: // 5, 6
		if err := r.endAbsence(); err != nil {
			return err
		}
		r.listed = append(r.listed, m.GetImages().GetFiles()...)
		if !m.GetImages().GetMore() {
			return r.restore(ctx, m.GetImages())
		}
		if len(r.listed) > wire.MaxImages {
			return fmt.Errorf("%w: more than %d image files", wire.ErrMalformed, wire.MaxImages)
		}
		return nil
	}
	return fmt.Errorf("%w: %T at the wrong moment", wire.ErrMalformed, m.GetBody())
}

// greetLimit bounds the wait for a session's first message, which says what it is for.
const greetLimit = 20 * time.Second

// firstWord is expect with that limit.
func firstWord[B any](ctx context.Context, t *talk, get func(*wire.Message) *B) (*B, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, greetLimit, errSilentCaller)
	defer cancel()
	return expect(ctx, t, get)
}

func (r *Receive) greet(ctx context.Context, undo *rollback) error {
	var err error
	if r.hello, err = firstWord(ctx, r.talk, (*wire.Message).GetHello); err != nil {
		return err
	}
	if got := r.hello.GetProtocol(); got != wire.Protocol {
		return fmt.Errorf("%w: it speaks protocol %d, this host %d: install the same release of migrate on both", wire.ErrVersion, got, wire.Protocol)
	}
	if _, err := ParseMode(r.hello.GetMode()); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrIncompatible, err)
	}
	if r.hello.GetCheck() {
		return r.look(ctx)
	}
	if err := laden(r.session); err != nil {
		return err
	}
	place, offer, err := r.Host.Reserve(ctx, r.hello)
	if err != nil {
		return err
	}
	r.place, r.feeds = place, offer.GetFeeds()
	undo.Add("discard the container", place.Discard)
	r.journal, err = journal.Create(r.Journals, journal.Move{
		Name:      r.hello.GetMove(),
		Role:      journal.Peer,
		Container: r.hello.GetContainer(),
		Root:      r.Root,
		Peer:      r.session.Peer(),
		Token:     r.session.Proof(),
	})
	if err != nil {
		return err
	}
	if err := failpoint.Hit(ctx, failpoint.PeerOffer); err != nil {
		return err
	}
	return r.talk.send(ctx, &wire.Message{Body: &wire.Message_Offer{Offer: offer}})
}

// laden refuses a session that only asks where something is to come: how many lanes there are is the source's word.
func laden(s Session) error {
	if s.Files() == nil || len(s.Images()) == 0 {
		return fmt.Errorf("%w: a session without lanes for files and images", wire.ErrMalformed)
	}
	return nil
}

// look answers a source that only asks.
func (r *Receive) look(ctx context.Context) error {
	offer, err := r.Host.Look(ctx, r.hello)
	if err != nil {
		return err
	}
	if err := r.talk.send(ctx, &wire.Message{Body: &wire.Message_Offer{Offer: offer}}); err != nil {
		return err
	}
	return errOnlyAsked
}

func (r *Receive) sync(ctx context.Context, order *wire.SyncTree) error {
	index := int(order.GetIndex())
	if index >= len(r.hello.GetTrees()) {
		return fmt.Errorf("%w: tree %d of %d", wire.ErrMalformed, index, len(r.hello.GetTrees()))
	}
	received, err := r.place.Sync(ctx, index, r.session.Files())
	if err != nil {
		return fmt.Errorf("receive %s: %w", r.hello.GetTrees()[index].GetName(), because(ctx, err))
	}
	if err := failpoint.Hit(ctx, failpoint.PeerSynced); err != nil {
		return err
	}
	answer := &wire.TreeSynced{Index: order.GetIndex(), Bytes: received}
	return r.talk.send(ctx, &wire.Message{Body: &wire.Message_TreeSynced{TreeSynced: answer}})
}

// prepare makes the container's place, and from then on takes images.
func (r *Receive) prepare(ctx context.Context) error {
	if r.images != nil {
		return fmt.Errorf("%w: prepared twice", wire.ErrMalformed)
	}
	findings, err := r.place.Prepare(ctx)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if r.images, err = newImageReceiver(r.place.Images(), r.Limits.Images); err != nil {
		return err
	}
	if r.feeds {
		r.pages = newPageReceiver(r.place.Pages)
	}
	r.allowAbsence()
	r.openLanes()
	if err := failpoint.Hit(ctx, failpoint.PeerPrepared); err != nil {
		return err
	}
	prepared := &wire.Prepared{}
	prepared.SetFindings(findings)
	return r.talk.send(ctx, &wire.Message{Body: &wire.Message_Prepared{Prepared: prepared}})
}

func (r *Receive) restore(ctx context.Context, last *wire.Images) error {
	if r.images == nil || r.pages == nil && last.GetPageFrames() > 0 {
		return fmt.Errorf("%w: images before prepare, or pages not asked for", wire.ErrMalformed)
	}
	if err := r.images.Complete(ctx, r.listed); err != nil {
		return err
	}
	if r.pages != nil {
		if err := r.pages.wait(ctx, last.GetPageFrames()); err != nil {
			return err
		}
	}
	if last.GetOwedPages() > 0 {
		if err := r.owe(ctx, Owed{Slot: last.GetOwedSlot(), Pages: last.GetOwedPages()}); err != nil {
			return err
		}
	}
	if err := failpoint.Hit(ctx, failpoint.PeerRestore); err != nil {
		return err
	}
	began := time.Now()
	gate, err := r.place.Restore(ctx, last.GetStdio())
	if err != nil {
		return fmt.Errorf("%w: %w", wire.ErrRestore, err)
	}
	r.gate = gate
	if err := failpoint.Hit(ctx, failpoint.PeerRestored); err != nil {
		return err
	}
	ready := &wire.Ready{RestoreUs: uint64(time.Since(began).Microseconds())}
	return r.talk.send(ctx, &wire.Message{Body: &wire.Message_Ready{Ready: ready}})
}

// resumeLimit bounds the way from COMMIT to "running", on which the service is down: a CRIU that hangs is killed.
const resumeLimit = 20 * time.Second

// resume is the peer's part after COMMIT: nobody can call it off any more.
func (r *Receive) resume(ctx context.Context) error {
	began, spent := time.Now(), r.journal.Spent()
	// Not worth a wait for the disk: after a power cut the container is gone, and without "running" this side says so.
	if err := r.journal.Note(journal.Committed, ""); err != nil {
		return err
	}
	_ = failpoint.Hit(ctx, failpoint.PeerCommitted)
	opening, expire := context.WithCancelCause(ctx)
	defer expire(nil)
	limit := time.AfterFunc(resumeLimit, func() { expire(errResumeTooLate) })
	err := r.gate.Open(opening, func() error {
		if !limit.Stop() {
			return errResumeTooLate
		}
		if err := r.journal.Append(r.arrived(), ""); err != nil {
			return err
		}
		_ = failpoint.Hit(ctx, failpoint.PeerRunning)
		return nil
	})
	limit.Stop()
	if r.journal.Last() != r.arrived() {
		return fmt.Errorf("%w: %w", wire.ErrRestore, because(opening, err))
	}
	if err != nil { // too late to give it back: as after any crash, it is this host's
		r.Log.Error("the container is ours, but its start was not clean", "error", err)
	}
	_ = failpoint.Hit(ctx, failpoint.PeerOpened)
	written := r.journal.Spent() - spent + r.gate.Wrote()
	done := &wire.Done{ResumeUs: uint64(time.Since(began).Microseconds()), JournalUs: uint64(written.Microseconds())}
	done.SetFindings(r.gate.Lacks())
	if d := r.debtor.Load(); d != nil {
		done.OwedPages = max(1, d.debt.Missing()) // the last word is not said yet
	}
	r.verdict = &wire.Message{Body: &wire.Message_Done{Done: done}}
	return nil
}

// arrived is what makes the container this host's.
func (r *Receive) arrived() journal.Step {
	if r.debtor.Load() != nil {
		return journal.Owing
	}
	return journal.Running
}

// Container is the id that was received; empty before Hello.
func (r *Receive) Container() string { return r.hello.GetContainer() }
