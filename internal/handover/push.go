package handover

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

// Push is the source's side of one move.
type Push struct {
	Move      string // name of the move: 32 hexadecimal digits
	Container Container
	Dial      Dial
	Journal   *journal.Journal // has its Begin record; the caller closes it
	Images    string           // empty private directory, in memory where possible, for CRIU's images
	Retry     time.Duration    // how long a peer that can't be reached after COMMIT is asked again
	Keep      bool             // the stopped container stays
	Turns     Turns            // nil: it stops when it likes

	Mode        Mode          // empty: Auto
	MaxDowntime time.Duration // what Auto aims at; 0: DefaultMaxDowntime
	MaxRounds   int           // 0: DefaultMaxRounds
	Converge    bool          // Auto: slow the container down where it is away for too long otherwise
	Costs       *Costs        // of a stop, to predict it; nil: DefaultCosts
	Past        []Past        // earlier stops of this host, the newest last: they say how far Costs are wrong
	Peer        string        // its name in Past

	Record *report.Recorder
	Log    *slog.Logger

	session Session
	talk    *talk
	bell    *bell // what ends them
	held    Held
	hello   *wire.Hello
	offer   *wire.Offer
	memory  Memory // nil: its memory goes by CRIU's images
	owed    Owed   // of it, what the peer gets when the container runs there
	courier *courier
	sent    uint64  // bytes, over earlier sessions
	before  stopped // in attempts before this one
	lost    bool    // the first session's link

	barriers uint64        // of rounds of memory, that the peer has acknowledged
	open     bool          // a round has begun, and its barrier has not been passed
	broke    time.Time     // when the link did that is being made again; zero: it stands
	thawed   float64       // downtime until a failed move's container ran on, in ms
	next     func()        // ends its turn; nil before that
	written  time.Duration // that both hosts have waited for records, while the container stood still

	blockers   []report.Finding
	told       []report.Round // of memory
	mode       Mode           // as it came out
	prediction *report.Prediction
	load       Load          // on CRIU, as predicted with
	away       time.Duration // to the peer and back
	last       uint64        // bytes that the round inside the stop has sent
	slowed     slowed
	fresh      freshness
}

// Attempt is how one try at a move ended. Its times are filled in when the Recorder finishes the story.
type Attempt struct {
	Result    report.Result
	Err       error     // why it is not Moved
	Unreached bool      // there was no session
	Owed      bool      // Resolve needs the layout in Images to send the rest of the memory
	LinkLost  bool      // the link broke while the container ran: another attempt costs it nothing
	Broke     time.Time // when that was noticed; zero: at the end
	Past      *Past     // what its stop took, of a move with a prediction
}

// Run moves the container and reports how it ended. Whatever it returns, never two copies run; with report.Unknown the
// source stays frozen until Resolve. A cancelled ctx rolls back before COMMIT was sent and is ignored afterwards.
func (p *Push) Run(ctx context.Context) *Attempt {
	p.mode = StopCopy
	if p.Mode == "" {
		p.Mode = Auto
	}
	settled := context.WithoutCancel(ctx)
	ctx, alarm := context.WithCancelCause(ctx)
	defer alarm(nil)
	p.bell = newBell(alarm)
	var undo rollback // steps back in reverse order; disarmed before the first byte of COMMIT
	defer p.endTurn()

	err := p.giveAway(ctx, alarm, &undo) // 1 to 6
	if err != nil {
		return p.keep(settled, because(ctx, err), &undo)
	}
	spent := p.Journal.Spent()
	if err := p.Journal.Append(journal.CommitSent, ""); err != nil { // 7
		return p.keep(settled, err, &undo)
	}
	p.written = p.Journal.Spent() - spent
	undo.Disarm()
	verdict, err := p.commit(settled)
	return p.finish(settled, verdict, err) // 8, 9
}

// giveAway does all that can be undone: afterwards the peer holds a restored container that waits at its gate.
func (p *Push) giveAway(ctx context.Context, alarm context.CancelCauseFunc, undo *rollback) (err error) {
	p.begin()
	if err := p.greet(ctx, undo); err != nil { // 1
		return err
	}
	if err := p.first(ctx); err != nil { // 2
		return err
	}
	p.yield(ctx)
	if err := p.prepare(ctx); err != nil { // 3
		return err
	}
	if err := p.rounds(ctx, undo); err != nil {
		return err
	}
	for p.fresh.stale() { // there were no rounds, or they ended a while ago
		if err := p.refresh(ctx); err != nil {
			return err
		}
	}
	if p.takeTurn(ctx) > staleAfter {
		if err := p.refresh(ctx); err != nil {
			return err
		}
	}
	if err := p.dump(ctx, alarm, undo); err != nil { // 4, 5
		return err
	}
	if err := p.awaitReady(ctx); err != nil { // 6
		return err
	}
	return ctx.Err()
}

// begin tells the times of this attempt from those of attempts before it, which the Recorder adds up.
func (p *Push) begin() {
	p.Record.Enter(report.Preflight)
	p.before = p.stopped()
}

func (p *Push) prepare(ctx context.Context) error {
	if err := failpoint.Hit(ctx, failpoint.SourcePrepare); err != nil {
		return err
	}
	if err := p.talk.send(ctx, &wire.Message{Body: &wire.Message_Prepare{Prepare: &wire.Prepare{}}}); err != nil {
		return err
	}
	prepared, err := expect(ctx, p.talk, (*wire.Message).GetPrepared)
	if err != nil {
		return fmt.Errorf("prepare the peer: %w", err)
	}
	p.note(prepared.GetFindings(), p.offer.GetDestination())
	return nil
}

// dump stops the container. While CRIU still writes, its images and the trees' deltas are on their way already. The images
// are complete when the last of the memory has been sent: that adds to them where each page belongs.
func (p *Push) dump(ctx context.Context, alarm context.CancelCauseFunc, undo *rollback) error {
	work, workCtx := errgroup.WithContext(ctx)
	frozen, dumped := make(chan struct{}), make(chan struct{})
	dog := new(watchdog)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	progress := &meter{total: p.hello.GetMemoryBytes(), record: p.Record}
	channels := meterAll(shareAll(dog.watchAll(p.session.Images())), progress)
	images := newImageSender(p.Images, channels, func() ([]string, error) { return p.Container.Growing(p.Images) })
	lanes := newPageLanes(workCtx, channels)
	work.Go(func() (err error) {
		p.held, err = p.Container.Dump(workCtx, p.Images, DumpGates{
			Freezing: func() {
				_ = failpoint.Hit(workCtx, failpoint.SourceDump)
				p.Record.Enter(report.Freeze)
			},
			Frozen: func() {
				p.Record.Enter(report.Dump)
				p.slowed.stopped()
				go dog.Run(watching, alarm)
				close(frozen)
				_ = failpoint.Hit(workCtx, failpoint.SourceFrozen)
			},
		})
		if err != nil {
			p.thawed = p.Record.Downtime()
			err = fmt.Errorf("dump: %w", err)
			if workCtx.Err() == nil { // the rest ends by it: what the peer then says is no cause
				alarm(err)
			}
			return err
		}
		undo.Add("thaw the container", p.thaw)
		if err := failpoint.Hit(workCtx, failpoint.SourceDumped); err != nil {
			return err
		}
		p.Record.Enter(report.Transfer)
		if err := p.final(workCtx, lanes); err != nil {
			return err
		}
		if err := failpoint.Hit(workCtx, failpoint.SourceFinal); err != nil {
			return err
		}
		close(dumped)
		return nil
	})
	work.Go(func() error { return images.Run(workCtx, dumped) })
	work.Go(func() error { return p.sendDeltas(workCtx, frozen, dog) })
	if err := work.Wait(); err != nil {
		return err
	}
	if err := p.sendLinks(ctx, dog); err != nil {
		return err
	}
	stdio, err := p.stdio(ctx)
	if err != nil {
		return err
	}
	if err := p.list(ctx, images.Files(), lanes.frames.Load(), stdio); err != nil {
		return err
	}
	if p.owed.Pages > 0 { // a restore may need some already
		p.courier = newCourier(ctx, p)
		undo.Add("stop sending memory", func(context.Context) error {
			p.courier.stop()
			return nil
		})
	}
	return nil
}

// list tells the peer what the complete set is: files, and page frames since the last round.
func (p *Push) list(ctx context.Context, files []*wire.ImageFile, frames uint64, stdio []byte) error {
	for {
		part := files[:min(len(files), wire.MaxListed)]
		files = files[len(part):]
		set := &wire.Images{Files: part, More: len(files) > 0}
		if !set.GetMore() {
			set.Stdio, set.PageFrames, set.OwedSlot, set.OwedPages = stdio, frames, p.owed.Slot, p.owed.Pages
		}
		err := p.talk.send(ctx, &wire.Message{Body: &wire.Message_Images{Images: set}})
		if err != nil || !set.GetMore() {
			return err
		}
	}
}

// stdioLimit bounds the wait for a monitor, which need not be well.
const stdioLimit = 5 * time.Second

func (p *Push) stdio(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, stdioLimit)
	defer cancel()
	return p.Container.Stdio(ctx)
}

func (p *Push) thaw(ctx context.Context) error {
	err := p.held.Rollback(ctx)
	p.thawed = p.Record.Downtime()
	return err
}

// restoreLimit bounds the wait for a restore: a peer whose link lives while its CRIU hangs must not keep the service down.
const restoreLimit = 2 * time.Minute

func (p *Push) awaitReady(ctx context.Context) error {
	p.Record.Enter(report.Restore)
	ctx, cancel := context.WithTimeoutCause(ctx, restoreLimit, fmt.Errorf("the peer did not restore within %v", restoreLimit))
	defer cancel()
	if err := failpoint.Hit(ctx, failpoint.SourceReady); err != nil {
		return err
	}
	_, err := expect(ctx, p.talk, (*wire.Message).GetReady)
	return err
}

// result is what there is to tell of the move so far.
func (p *Push) result(outcome report.Outcome) report.Result {
	r := report.Result{
		Outcome:     outcome,
		Mode:        string(p.mode),
		Rounds:      p.told,
		Prediction:  p.prediction,
		Slowed:      p.slowed.report(),
		MemoryBytes: p.hello.GetMemoryBytes(),
		Container:   p.hello.GetContainer(),
		Source:      p.hello.GetSource(),
		Destination: p.offer.GetDestination(),
		Findings:    p.blockers,
	}
	if p.session != nil {
		r.BytesSent = p.sent + p.session.Sent()
	}
	return r
}
