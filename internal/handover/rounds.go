package handover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/line"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

// What a Push without an opinion aims at.
const (
	DefaultMaxDowntime = 300 * time.Millisecond
	DefaultMaxRounds   = 30
)

// storeError is the peer's word that it could not store what a round has sent. The peer itself is well.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

// rounds sends memory while the container runs, until a stop is short enough or more rounds would not make it shorter.
// Afterwards p.memory is what the dump goes with; nil when the memory goes by CRIU's images. What fails here costs the
// service nothing, so only a link that stays lost, a peer that gives up or the user ends the move.
func (p *Push) rounds(ctx context.Context, undo *rollback) error {
	if err := p.openMemory(ctx); err != nil || p.memory == nil {
		return err
	}
	undo.Add("let go of the memory", func(context.Context) error { return p.closeMemory() })
	if !p.Mode.rounds() {
		return nil
	}
	p.Record.Enter(report.Precopy)
	progress := &meter{total: p.hello.GetMemoryBytes(), record: p.Record}
	var c *converge
	var passes []pass
	for {
		leg := p.bell.begin(ctx)
		lanes := newPageLanes(leg, meterAll(shareAll(p.session.Images()), progress))
		err := p.ping(leg, lanes)
		if err != nil {
			err = p.fallBack(leg, lanes, err)
		} else {
			if c == nil { // it wants to know how far away the peer is
				c = p.converge()
			}
			err = p.leg(leg, lanes, c, &passes, undo)
		}
		if err == nil {
			err = p.bell.end(leg)
		}
		if err == nil || !p.mendable(ctx, err) {
			return err
		}
		if err := p.mend(ctx, err); err != nil {
			return err
		}
	}
}

// leg makes rounds over one session.
func (p *Push) leg(ctx context.Context, lanes *pageLanes, c *converge, passes *[]pass, undo *rollback) error {
	late := 0 // rounds with a turn that was waited for
	for {
		if err := failpoint.Hit(ctx, failpoint.SourceRound); err != nil {
			return p.fallBack(ctx, lanes, err)
		}
		p.yield(ctx)
		began := time.Now()
		if n := len(*passes); n > 0 { // a turn, or a link that was made again: the container wrote meanwhile
			(*passes)[n-1].idle = began.Sub((*passes)[n-1].ended)
		}
		round, err := p.round(ctx, lanes)
		if err != nil {
			return p.fallBack(ctx, lanes, err)
		}
		ended := time.Now()
		took := ended.Sub(began)
		*passes = append(*passes, pass{sent: round.Sent, took: took, ended: ended})
		d := c.decide(*passes)
		p.tell(round, took, &d)
		if d.slow > 0 && !p.slow(ctx, d, undo) {
			c.unbrake()
			d = c.decide(*passes)
		}
		if d.stop {
			again, err := p.freshen(ctx)
			if err != nil {
				return err
			}
			if again {
				continue
			}
			if p.takeTurn(ctx) > worthARound {
				late = 0
				continue
			}
			p.foresee(c, d)
			return nil
		}
		if late++; late >= lateRounds {
			p.endTurn() // others would wait for all that are still to come
		}
	}
}

// freshen sends the trees again, if that is worth it. After one that took long the memory needs another round, and others do not
// wait for that.
func (p *Push) freshen(ctx context.Context) (again bool, err error) {
	if !p.fresh.stale() {
		return false, nil
	}
	if err := p.refresh(ctx); err != nil {
		return false, err
	}
	p.Record.Enter(report.Precopy)
	if again = p.fresh.took > longRefresh; again {
		p.endTurn()
	}
	return again, nil
}

// openMemory takes hold of the container's memory, where both hosts can do more than CRIU's images.
func (p *Push) openMemory(ctx context.Context) error {
	limit := p.offer.GetFeedLimit()
	switch {
	case !p.offer.GetFeeds():
		p.byImages("the peer can't feed memory to a container that runs")
		return nil
	case limit > 0 && p.hello.GetMemoryBytes() > limit:
		p.byImages(fmt.Sprintf("the peer can store %d MB of it, the container has %d MB", limit>>20, p.hello.GetMemoryBytes()>>20))
		return nil
	}
	memory, err := p.Container.Memory(ctx)
	switch {
	case ctx.Err() != nil:
		if memory != nil {
			err = errors.Join(err, memory.Close())
		}
		return because(ctx, errors.Join(ctx.Err(), err))
	case err != nil:
		p.Record.Warn("the memory goes by CRIU's images: " + line.Of(err))
	case memory == nil:
		p.byImages("this host or the container does not allow more")
	}
	p.memory = memory
	return nil
}

// byImages says that the memory goes by CRIU's images, aloud where the user has asked for something else.
func (p *Push) byImages(why string) {
	p.Log.Info("the memory goes by CRIU's images", "why", why)
	if p.Mode == PreCopy || p.Mode.Later() {
		p.Record.Warn("no rounds, and nothing is left for later, the memory goes by CRIU's images: " + why)
	}
}

// round makes one pass over the memory and returns when the peer has stored it.
func (p *Push) round(ctx context.Context, lanes *pageLanes) (Round, error) {
	p.open = true
	round, err := p.memory.Round(ctx, lanes.lanes)
	if err != nil {
		return round, fmt.Errorf("read memory: %w", err)
	}
	if err := p.barrier(ctx, lanes, false); err != nil {
		return round, err
	}
	p.open = false
	return round, nil
}

// barrier waits until the peer has stored all that was sent, or with forget until it has dropped it.
func (p *Push) barrier(ctx context.Context, lanes *pageLanes, forget bool) error {
	sent := &wire.PagesSent{Frames: lanes.frames.Swap(0), Forget: forget}
	if err := p.talk.send(ctx, &wire.Message{Body: &wire.Message_PagesSent{PagesSent: sent}}); err != nil {
		return err
	}
	stored, err := expect(ctx, p.talk, (*wire.Message).GetPagesStored)
	if err != nil {
		return err
	}
	p.barriers++
	if err := stored.GetFailure().Err(); err != nil {
		return &storeError{err}
	}
	return nil
}

// ping measures the way to the peer and back. A stop has two such.
func (p *Push) ping(ctx context.Context, lanes *pageLanes) error {
	began := time.Now()
	err := p.barrier(ctx, lanes, false)
	p.away = time.Since(began)
	return err
}

// fallBack goes on without the memory engine after a round that failed, unless what failed was the link or the peer.
func (p *Push) fallBack(ctx context.Context, lanes *pageLanes, cause error) error {
	_, stored := errors.AsType[*storeError](cause)
	switch {
	case ctx.Err() != nil:
		return because(ctx, cause)
	case lanes.failure() != nil:
		return lanes.failure()
	case errors.Is(cause, ErrLinkLost) || errors.Is(cause, wire.ErrMalformed):
		return cause
	case !stored && isRefusal(cause): // the peer has given up
		return cause
	}
	p.Record.Warn("the memory goes by CRIU's images after all: " + line.Of(cause))
	if err := p.closeMemory(); err != nil {
		p.Log.Warn("let go of the memory", "error", err)
	}
	if err := p.barrier(ctx, lanes, true); err != nil {
		return fmt.Errorf("make the peer forget the memory: %w", err)
	}
	return nil
}

// final sends what is dirty when the container stands still. Its frames are counted with the images.
func (p *Push) final(ctx context.Context, lanes *pageLanes) error {
	if p.memory == nil {
		return nil
	}
	began := time.Now()
	if p.Mode.Later() {
		owed, err := p.memory.Promise(ctx)
		if err != nil {
			return fmt.Errorf("promise the rest of the memory: %w", err)
		}
		p.owed = owed
		p.Log.Info("memory follows later", "pages", owed.Pages, "took", time.Since(began))
		return nil
	}
	round, err := p.memory.Final(ctx, lanes.lanes)
	if err != nil {
		return fmt.Errorf("send the last of the memory: %w", err)
	}
	p.last = round.Sent
	p.tell(round, time.Since(began), nil)
	return nil
}

func (p *Push) closeMemory() error {
	if p.memory == nil {
		return nil
	}
	memory := p.memory
	p.memory = nil
	return memory.Close()
}

// tell makes a round part of the story; d is nil for the one inside the freeze.
func (p *Push) tell(round Round, took time.Duration, d *decision) {
	r := report.Round{
		Number: len(p.told) + 1,
		Pages:  round.Scanned / pageSize,
		Bytes:  round.Sent,
		MS:     report.Milliseconds(took),
		Frozen: d == nil,
	}
	if d != nil {
		r.PredictedMS = report.Milliseconds(d.downtime)
	}
	p.told = append(p.told, r)
	p.Record.Round(r)
	p.Log.Debug("memory round", "number", r.Number, "scanned", round.Scanned, "sent", round.Sent, "frames", round.Frames, "scan", round.Looked, "took", took)
}

// pageSize is what a report counts memory in, bytes.
const pageSize = 4096
