package handover

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/wire"
)

// debtor is the peer's part while a container lacks memory: it asks the source for what tasks wait for, and takes what comes.
// Sessions may break and come again.
type debtor struct {
	receive *Receive
	debt    Debt
	owed    Owed
	quit    context.CancelFunc
	asking  sync.WaitGroup
	ended   chan struct{} // the last word is recorded, or never will be

	mu     sync.Mutex
	talk   *talk // nil without a link
	newest int   // how many sessions have come after the first: an older one is broken
	wanted []uint64
	open   bool // running here, and not ended: a session that comes is welcome
	last   *wire.Message
	told   *talk // whom settle tells the last word
}

// owe makes the debtor, before the restore: that may need pages already.
func (r *Receive) owe(ctx context.Context, owed Owed) error {
	if r.pages == nil {
		return fmt.Errorf("%w: pages are owed that were not asked for", wire.ErrMalformed)
	}
	debt, err := r.place.Owe(owed)
	if err != nil {
		return fmt.Errorf("owe memory: %w", err)
	}
	r.pages.follow()
	ctx, quit := context.WithCancel(context.WithoutCancel(ctx))
	d := &debtor{receive: r, debt: debt, owed: owed, quit: quit, talk: r.talk, ended: make(chan struct{})}
	d.begin(ctx)
	files := r.session.Files()
	r.lanes.Go(func() error { return d.drain(ctx, files) })
	return nil
}

func (d *debtor) begin(ctx context.Context) {
	d.asking.Go(func() { d.relay(ctx) })
	d.receive.debtor.Store(d)
}

// stop ends what owe began.
func (d *debtor) stop() {
	d.quit()
	d.asking.Wait()
}

// drain takes what a lane brings. What can't be stored breaks the link, so that it is sent again.
func (d *debtor) drain(ctx context.Context, lane Channel) error {
	err := d.receive.drain(ctx, lane)
	if err != nil {
		d.receive.Log.Warn("a lane of memory is lost", "error", err)
	}
	return err
}

// relay asks for pages that tasks wait for.
func (d *debtor) relay(ctx context.Context) {
	for {
		slots, err := d.debt.Wanted(ctx)
		if err != nil {
			return
		}
		d.mu.Lock()
		d.wanted = append(d.wanted, slots...)
		d.mu.Unlock()
		d.ask(ctx, slots)
	}
}

// ask sends a request over the link there is. One that is lost is repeated over the next.
func (d *debtor) ask(ctx context.Context, slots []uint64) {
	d.mu.Lock()
	t := d.talk
	d.mu.Unlock()
	if t == nil {
		return
	}
	for part := range slices.Chunk(slots, wire.MaxRequest) {
		request := &wire.PageRequest{Slots: part}
		if err := t.send(ctx, &wire.Message{Body: &wire.Message_PageRequest{PageRequest: request}}); err != nil {
			d.receive.Log.Debug("can't ask for pages now", "error", err)
			return
		}
	}
}

// run is the peer's part from "running" on, until nothing is missing.
func (d *debtor) run(ctx context.Context) {
	r := d.receive
	d.mu.Lock()
	d.open = true
	d.mu.Unlock()
	r.tell(ctx, r.verdict)
	r.Log.Info("the container runs; the rest of its memory follows", "pages", d.debt.Missing())
	go func() {
		select {
		case <-r.talk.done:
			d.lose(r.talk, r.session)
		case <-d.ended:
		}
	}()
	d.settle(ctx)
}

// settle waits until nothing is missing, records it, and tells the source.
func (d *debtor) settle(ctx context.Context) {
	<-d.debt.Paid()
	_ = failpoint.Hit(ctx, failpoint.PeerPaid)
	last := &wire.Message{Body: &wire.Message_Done{Done: &wire.Done{}}}
	if err := d.record(); err != nil {
		last = &wire.Message{Body: &wire.Message_Failure{Failure: wire.NewFailure(err)}}
	}
	d.mu.Lock()
	t := d.talk
	d.last, d.told, d.open = last, t, false
	d.mu.Unlock()
	if t != nil {
		d.tellLast(ctx, t)
	}
	close(d.ended)
	d.stop()
}

// record writes that nothing is missing, if that is so.
func (d *debtor) record() error {
	log := d.receive.Log
	if err := inDebt(d.debt.Err()); err != nil {
		log.Error("the container can't get the rest of its memory", "error", err)
		return err
	}
	if err := d.receive.journal.Append(journal.Running, ""); err != nil { // whoever comes next can
		log.Error("the container has all its memory, which is not recorded", "error", err)
		return fmt.Errorf("record that no memory is missing: %w", err)
	}
	return nil
}

// lingerLimit is how long the last word may take to be read.
const lingerLimit = 2 * time.Second

// tellLast sends the last word.
func (d *debtor) tellLast(ctx context.Context, t *talk) {
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := t.send(limited, d.last); err != nil {
		d.receive.Log.Debug("could not tell the source", "error", err) // it asks again
	}
	select { // the source hangs up when it has read that
	case <-t.done:
	case <-time.After(lingerLimit):
	}
}

// lose notes that a link is gone.
func (d *debtor) lose(t *talk, session Session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.talk == t {
		d.talk = nil
		if d.open {
			d.receive.Log.Warn("the link to the source is lost; tasks that need more memory wait for it", "pages", d.debt.Missing())
		}
	}
	_ = session.Close()
}

// owes is the debtor of a move, for its own source, while it is one.
func (r *Receive) owes(move string, session Session) *debtor {
	if r == nil {
		return nil
	}
	d := r.debtor.Load()
	if d == nil || r.hello.GetMove() != move ||
		subtle.ConstantTimeCompare([]byte(r.proof), []byte(session.Proof())) == 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.open {
		return nil
	}
	return d
}

// lost is why a container that lacks memory will not get it, once that is known.
func (r *Receive) lost(move string) error {
	d := r.debtor.Load()
	if d == nil || r.hello.GetMove() != move {
		return nil
	}
	select {
	case <-d.ended:
		return inDebt(d.debt.Err())
	default:
		return nil
	}
}

// inDebt is that for the source.
func inDebt(err error) error {
	if err == nil || errors.Is(err, wire.ErrEnded) {
		return err
	}
	return fmt.Errorf("%w: %w", wire.ErrOwed, err)
}

// answer tells the source on a new session what is missing, and with follow takes that until the session or the debt ends.
func (d *debtor) answer(ctx context.Context, t *talk, session Session, follow bool) error {
	done := &wire.Done{OwedPages: max(1, d.debt.Missing())}
	if err := t.send(ctx, &wire.Message{Body: &wire.Message_Done{Done: done}}); err != nil {
		return err
	}
	if !follow {
		awaitHangUp(ctx, t)
		return nil
	}
	d.mu.Lock()
	d.newest++
	number := d.newest // the source opens the next only when it has given this one up
	d.mu.Unlock()
	if err := tellStored(ctx, t, d.owed.Slot, d.debt.Stored); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lanes := new(errgroup.Group)
	for _, lane := range append([]Channel{session.Files()}, session.Images()...) {
		lanes.Go(func() error {
			err := d.drain(ctx, lane)
			if err != nil {
				_ = session.Close()
			}
			return err
		})
	}
	d.mu.Lock()
	if number == d.newest {
		d.talk = t
	}
	again := slices.Clone(d.wanted)
	d.mu.Unlock()
	d.receive.Log.Info("the link to the source is back", "pages", d.debt.Missing())
	d.ask(ctx, again)
	select {
	case <-t.done:
		d.lose(t, session)
	case <-d.ended:
		d.mu.Lock()
		told := d.told == t
		d.mu.Unlock()
		if !told { // all came before this one was known
			d.tellLast(ctx, t)
		}
	}
	cancel()
	return lanes.Wait()
}
