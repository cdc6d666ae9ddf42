package handover

import (
	"context"
	"fmt"
	"time"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

// freshness is what is known of the passes over the trees.
type freshness struct {
	refreshes    int
	took, before time.Duration // the last pass over them, and the one before it
	ended        time.Time
}

// What a refresh is worth.
const (
	mostRefreshes = 5
	longRefresh   = 100 * time.Millisecond // what memory was written meanwhile is worth a round
	staleAfter    = 500 * time.Millisecond // of a short one: another is as short
)

// stale tells whether another look at the trees makes the stop shorter. A container that writes as fast as its files are sent is
// not waited for: what it has written grows from one look to the next.
func (f *freshness) stale() bool {
	switch {
	case f.refreshes == 0:
		return true
	case f.refreshes >= mostRefreshes:
		return false
	case f.took <= longRefresh:
		return time.Since(f.ended) > staleAfter
	}
	return f.took < f.before/2
}

// first sends the trees for the first time.
func (p *Push) first(ctx context.Context) error {
	p.Record.Enter(report.Rootfs)
	began := time.Now()
	for i, tree := range p.Container.Trees() {
		p.yield(ctx)
		progress := &meter{total: p.hello.GetTrees()[i].GetBytes(), record: p.Record}
		pass := func(ctx context.Context, ch Channel) (uint64, error) {
			if err := failpoint.Hit(ctx, failpoint.SourceSync); err != nil {
				return 0, err
			}
			return tree.Pass(ctx, ch)
		}
		if err := p.sync(ctx, i, pass, metered{p.session.Files(), progress}, false); err != nil {
			return err
		}
	}
	p.fresh.took = time.Since(began)
	return nil
}

// refresh sends what has changed in the trees since they were sent, shortly before the stop: little is left for that, and both
// hosts have at hand what they look at there.
func (p *Push) refresh(ctx context.Context) error {
	if err := failpoint.Hit(ctx, failpoint.SourceRefresh); err != nil {
		return err
	}
	p.Record.Enter(report.Rootfs)
	progress := &meter{record: p.Record}
	began := time.Now()
	for i, tree := range p.Container.Trees() {
		if !tree.Again() {
			continue
		}
		if err := p.sync(ctx, i, tree.Pass, metered{p.session.Files(), progress}, false); err != nil {
			return err
		}
	}
	f := &p.fresh
	f.refreshes++
	f.before, f.took, f.ended = f.took, time.Since(began), time.Now()
	return nil
}

// sync has one pass over a tree made.
func (p *Push) sync(ctx context.Context, index int, pass func(context.Context, Channel) (uint64, error), files Channel, frozen bool) error {
	name := p.hello.GetTrees()[index].GetName()
	order := &wire.SyncTree{Index: uint32(index), Frozen: frozen}
	if err := p.talk.send(ctx, &wire.Message{Body: &wire.Message_SyncTree{SyncTree: order}}); err != nil {
		return err
	}
	sent, err := pass(ctx, files)
	if err != nil {
		return fmt.Errorf("send %s: %w", name, because(ctx, err))
	}
	synced, err := expect(ctx, p.talk, (*wire.Message).GetTreeSynced)
	if err != nil {
		return fmt.Errorf("send %s: %w", name, err)
	}
	if synced.GetIndex() != order.GetIndex() {
		return fmt.Errorf("%w: another tree was synchronised", wire.ErrMalformed)
	}
	p.Log.Debug("tree sent", "tree", name, "bytes", sent, "frozen", frozen)
	return nil
}

func (p *Push) sendDeltas(ctx context.Context, frozen <-chan struct{}, dog *watchdog) error {
	select {
	case <-frozen:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := p.talk.send(ctx, &wire.Message{Body: &wire.Message_Frozen{Frozen: &wire.Frozen{}}}); err != nil {
		return err
	}
	return p.deltas(ctx, dog)
}

func (p *Push) deltas(ctx context.Context, dog *watchdog) error {
	for i, tree := range p.Container.Trees() {
		if err := p.sync(ctx, i, tree.Delta, dog.Watch(p.session.Files()), true); err != nil {
			return err
		}
	}
	return nil
}

// sendLinks sends what CRIU has made in the trees while it dumped: it gives an open file that was deleted by one of its
// names, but not by all, a new one to find it by.
func (p *Push) sendLinks(ctx context.Context, dog *watchdog) error {
	linked, err := p.held.Linked()
	if err != nil || !linked {
		return err
	}
	return p.deltas(ctx, dog)
}
