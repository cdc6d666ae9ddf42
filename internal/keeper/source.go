package keeper

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/line"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/unlinked"
	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/runtime"
	"github.com/livemigrate/migrate/transport"
)

// RunSource is the source's keeper: it takes the order from its line and moves the container. It returns when the move has
// ended; how is in the events, not in the error.
func RunSource(ctx context.Context) error {
	line, err := openLine()
	if err != nil {
		return err
	}
	defer func() { _ = line.Close() }()
	events := newTeller(line)
	defer events.close()
	order, err := readOrder(line)
	if err != nil {
		return events.refuse("", err)
	}
	log, closeLog, err := order.openLog(order.Container+"-push", order.Debug)
	if err != nil {
		return events.refuse(order.Container, err)
	}
	defer closeLog()
	leaveCgroups(log)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, line) // push says no more: its end, or its Cancel, calls the move off
		cancel()
	}()
	m := &mover{order: order, log: log, sink: events.tell}
	result := m.run(ctx)
	log.Info("move ended", "outcome", result.Outcome, "downtime_ms", result.DowntimeMS, "error", result.Error)
	return nil
}

func openLine() (*net.UnixConn, error) {
	file := os.NewFile(lineFD, "line")
	conn, err := net.FileConn(file)
	err = errors.Join(err, file.Close())
	if err != nil {
		return nil, fmt.Errorf("open the line to push: %w", err)
	}
	return conn.(*net.UnixConn), nil
}

// mover makes the attempts of one order.
type mover struct {
	order    *Order
	log      *slog.Logger
	sink     func(report.Event)
	attempts int
}

// run makes attempts until one ends otherwise than by something that passes: a link that broke while the container ran, until
// patience is over, or a state of the container that CRIU can't dump and that is gone a moment later, a few times.
func (m *mover) run(ctx context.Context) *report.Result {
	record := report.NewRecorder(m.sink)
	link := patience{limit: m.order.Retry}
	unlucky := 0
	for {
		began := time.Now()
		attempt, err := m.attempt(ctx, record)
		if err != nil {
			return record.Finish(report.Result{Outcome: report.Kept, Container: m.order.Container, Error: line.Of(err)})
		}
		link.note(attempt, began, time.Now())
		switch {
		case ctx.Err() != nil:
			return record.Finish(attempt.Result)
		case isPassing(attempt.Err) && unlucky < unluckyTimes:
			unlucky++
			record.Warn("it could not be dumped at that moment and ran on; trying again: " + attempt.Result.Error)
			m.leaveInFlight(record, attempt.Err, unlucky)
		case worthAnother(attempt, link.broke()) && link.lasts(time.Now()):
			record.Warn("the link broke while the container ran on; trying again: " + attempt.Result.Error)
		default:
			return record.Finish(attempt.Result)
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
		}
	}
}

// unluckyTimes is how often a container is tried again that was in a passing state. Each costs it some 50 ms.
const unluckyTimes = 4

// isPassing tells whether a dump failed for what is likely over a moment later: a state that CRIU names, or a thread whose
// end it was caught in, and which the dump lacks.
func isPassing(err error) bool {
	if errors.Is(err, image.ErrDamaged) || errors.Is(err, unlinked.ErrNamed) {
		return true
	}
	failed, ok := errors.AsType[*checkpoint.Error](err)
	return ok && failed.Passing()
}

// acceptTimes is how often a program is given a second to accept the connections that wait for it. CRIU can't save those.
const acceptTimes = 2

// leaveInFlight leaves connections behind that the program does not accept: their other ends learn it when they send.
func (m *mover) leaveInFlight(record *report.Recorder, err error, unlucky int) {
	failed, ok := errors.AsType[*checkpoint.Error](err)
	if !ok || !failed.InFlight() || unlucky < acceptTimes || m.order.skipInFlight {
		return
	}
	m.order.skipInFlight = true
	record.Warn("connections that its program does not accept do not move: their other ends are reset when they send")
}

const retryPause = time.Second

// worthAnother tells whether an attempt failed for a link that may come back, at no cost to the container. The peer may
// notice a broken link later than this side: until then it is busy with the attempt before.
func worthAnother(a *handover.Attempt, broken bool) bool {
	return a.LinkLost || broken && (a.Unreached || errors.Is(a.Err, wire.ErrBusy) || errors.Is(a.Err, wire.ErrFull))
}

// attempt is one move from its first word to its end. The error is that of a move that could not begin; what fails in
// clearing up after one is a warning, because it changes nothing of where the container is.
func (m *mover) attempt(ctx context.Context, record *report.Recorder) (*handover.Attempt, error) {
	m.attempts++
	turns := turns{m.order.run(), m.log}
	if err := m.order.make(); err != nil {
		return nil, err
	}
	turns.Yield(ctx)
	name, token := attemptName(m.order.Move, m.attempts), transport.NewToken()
	c, err := openContainer(ctx, m.order, name, m.log)
	if err != nil {
		return m.refused(ctx, err)
	}
	defer func() { m.tidy(record, c.Close()) }()
	dialer, err := newDialer(m.order.Peer, m.order.Certificates)
	if err != nil {
		return nil, err
	}
	m.order.sweep(m.log)
	m.order.prune(journal.Source, m.order.Container, m.log)
	j, err := journal.Create(m.order.Journals, journal.Move{
		Name:      name,
		Role:      journal.Source,
		Container: m.order.Container,
		Root:      m.order.Root,
		Peer:      m.order.Peer,
		Token:     hex.EncodeToString(token[:]),
		Keep:      m.order.Keep,
	})
	if err != nil {
		return nil, err
	}
	defer func() { m.tidy(record, j.Close()) }()
	images, err := m.order.spool(name)
	if err != nil {
		return nil, errors.Join(err, j.Append(journal.RolledBack, err.Error()))
	}
	keepImages := false
	defer func() {
		if !keepImages {
			m.tidy(record, os.RemoveAll(images))
		}
	}()

	options := &transport.ConnectOptions{Token: token, Log: m.log}
	if m.order.BandwidthLimit > 0 {
		options.Throttle = transport.NewThrottle(m.order.BandwidthLimit)
	}
	past, err := m.order.past()
	if err != nil {
		m.log.Warn("the stop is predicted without past ones", "error", err)
	}
	push := &handover.Push{
		Move:      name,
		Container: c,
		Dial:      m.order.inTurn(dial(dialer, options, m.order.Lanes), m.log),
		Journal:   j,
		Images:    images,
		Retry:     m.order.Retry,
		Keep:      m.order.Keep,
		Turns:     turns,
		Record:    record,
		Log:       m.log,

		Mode:        m.order.Mode,
		MaxDowntime: m.order.MaxDowntime,
		MaxRounds:   m.order.MaxRounds,
		Converge:    m.order.Converge,
		Past:        past,
		Peer:        m.order.Peer,
	}
	a := push.Run(ctx)
	if a.Past != nil {
		if err := m.order.remember(a.Past); err != nil {
			m.log.Warn("the next prediction lacks this stop", "error", err)
		}
	}
	keepImages = a.Owed
	return a, nil
}

// refused is the end of an attempt that this host's own checks did not let begin.
func (m *mover) refused(ctx context.Context, err error) (*handover.Attempt, error) {
	if ctx.Err() != nil {
		return nil, handover.ErrCancelled
	}
	return &handover.Attempt{
		Result: report.Result{Outcome: report.Refused, Container: m.order.Container, Source: hostname(), Error: line.Of(err)},
		Err:    err,
	}, nil
}

func (m *mover) tidy(record *report.Recorder, err error) {
	if err != nil {
		m.log.Warn("clear up after an attempt", "error", err)
		record.Warn("clear up after the move: " + line.Of(err))
	}
}

// newMove makes the first 28 digits of the names of an order's moves; the others count its attempts.
func newMove() string {
	var name [14]byte
	_, _ = rand.Read(name[:]) // never fails: it ends the program instead
	return hex.EncodeToString(name[:])
}

func attemptName(move string, attempt int) string { return fmt.Sprintf("%s%04x", move, attempt&0xffff) }

func newDialer(peer string, certificates transport.Certificates) (transport.Dialer, error) {
	address, err := transport.ParseAddress(peer)
	if err != nil {
		return nil, err
	}
	return transport.NewDialer(address, &transport.DialOptions{Certificates: certificates})
}

// dial makes sessions of a move. One that only asks has no lanes.
func dial(dialer transport.Dialer, options *transport.ConnectOptions, lanes int) handover.Dial {
	return func(ctx context.Context, why handover.Why) (handover.Session, error) {
		o := *options
		o.Resume = why != handover.ToMove
		if why != handover.ToAsk {
			o.Lanes = filesLane + lanes
		}
		s, err := transport.Connect(ctx, dialer, &o)
		if err != nil {
			return nil, err
		}
		return session{s}, nil
	}
}

// CheckOrder refuses, before anything is started, an order that can't work: no such container, or not a running one.
func CheckOrder(o *Order) error {
	rt, err := runtime.Open(&runtime.Options{Root: o.Root, SystemdCgroup: o.SystemdCgroup})
	if err != nil {
		return err
	}
	c, err := rt.Load(o.Container)
	if err != nil {
		return err
	}
	return checkRunning(c)
}

func checkRunning(c *runtime.Container) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	if c.State().Move != "" && status == runtime.Paused {
		return fmt.Errorf("container %s is frozen by a move that has not ended: end that with \"migrate resolve %s\": %w", c.ID(), c.ID(), runtime.ErrMoving)
	}
	if status != runtime.Running {
		return fmt.Errorf("move %s, which is %s: %w", c.ID(), status, runtime.ErrNotRunning)
	}
	return nil
}
