package handover

import (
	"context"
	"fmt"
	"time"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/wire"
)

// first sends a tree for the first time.
func (p *Push) first(ctx context.Context, index int, tree Tree) error {
	progress := &meter{total: p.hello.GetTrees()[index].GetBytes(), record: p.Record}
	pass := func(ctx context.Context, ch Channel) (uint64, error) {
		if err := failpoint.Hit(ctx, failpoint.SourceSync); err != nil {
			return 0, err
		}
		return tree.Pass(ctx, ch)
	}
	return p.sync(ctx, index, pass, metered{p.session.Files(), progress}, false)
}

// refresh sends what has changed in the trees since they were sent, right before the stop: little is left for that, and both
// hosts have at hand what they look at there. It returns how long that took.
func (p *Push) refresh(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	for i, tree := range p.Container.Trees() {
		if !tree.Again() {
			continue
		}
		if err := p.sync(ctx, i, tree.Pass, p.session.Files(), false); err != nil {
			return 0, err
		}
	}
	p.fresh = true
	return time.Since(began), nil
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
