package keeper

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/report"
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
	order, err := readOrder(line)
	if err != nil {
		return err
	}
	log, closeLog, err := order.openLog(order.Container+"-push", order.Debug)
	if err != nil {
		return err
	}
	defer closeLog()
	leaveCgroups(log)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, line) // push says no more: its end, or its Cancel, calls the move off
		cancel()
	}()
	events := json.NewEncoder(line)
	sink := func(e report.Event) {
		if err := events.Encode(e); err != nil {
			log.Debug("nobody listens", "error", err)
		}
	}
	m := &mover{order: order, log: log, sink: sink}
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
	order *Order
	log   *slog.Logger
	sink  func(report.Event)
}

// run makes attempts until one ends otherwise than by a link that broke while the container ran, or patience is over.
func (m *mover) run(ctx context.Context) *report.Result {
	record := report.NewRecorder(m.sink)
	var broken time.Time
	for {
		attempt, err := m.attempt(ctx, record)
		if err != nil {
			return record.Finish(report.Result{Outcome: report.Kept, Container: m.order.Container, Error: err.Error()})
		}
		if broken.IsZero() && attempt.LinkLost {
			broken = time.Now()
		}
		again := attempt.LinkLost || attempt.Unreached && !broken.IsZero()
		if !again || ctx.Err() != nil || time.Since(broken) > m.order.Retry {
			return record.Finish(attempt.Result)
		}
		record.Warn("the link broke while the container ran on; trying again: " + attempt.Result.Error)
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
		}
	}
}

const retryPause = time.Second

// attempt is one move from its first word to its end. The error is that of a move that could not begin.
func (m *mover) attempt(ctx context.Context, record *report.Recorder) (_ *handover.Attempt, err error) {
	c, err := openContainer(ctx, m.order, m.log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	name, token := newMove(), transport.NewToken()
	dialer, err := newDialer(m.order.Peer, m.order.Certificates)
	if err != nil {
		return nil, err
	}
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
	defer func() { err = errors.Join(err, j.Close()) }()
	images, err := m.order.spool(name)
	if err != nil {
		return nil, errors.Join(err, j.Append(journal.RolledBack, err.Error()))
	}
	defer func() { err = errors.Join(err, os.RemoveAll(images)) }()

	options := &transport.ConnectOptions{Token: token, Log: m.log}
	if m.order.BandwidthLimit > 0 {
		options.Throttle = transport.NewThrottle(m.order.BandwidthLimit)
	}
	push := &handover.Push{
		Move:      name,
		Container: c,
		Dial:      dial(dialer, options, m.order.Lanes),
		Journal:   j,
		Images:    images,
		Retry:     m.order.Retry,
		Keep:      m.order.Keep,
		Record:    record,
		Log:       m.log,
	}
	return push.Run(ctx), nil
}

// newMove makes the name of a move.
func newMove() string {
	var name [16]byte
	_, _ = rand.Read(name[:]) // never fails: it ends the program instead
	return hex.EncodeToString(name[:])
}

func newDialer(peer string, certificates transport.Certificates) (transport.Dialer, error) {
	address, err := transport.ParseAddress(peer)
	if err != nil {
		return nil, err
	}
	return transport.NewDialer(address, &transport.DialOptions{Certificates: certificates})
}

// dial makes sessions of a move: the first with lanes, later ones, which only ask, without.
func dial(dialer transport.Dialer, options *transport.ConnectOptions, lanes int) handover.Dial {
	return func(ctx context.Context, resume bool) (handover.Session, error) {
		o := *options
		o.Resume = resume
		if !resume {
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
	if status != runtime.Running {
		return fmt.Errorf("move %s, which is %s: %w", c.ID(), status, runtime.ErrNotRunning)
	}
	return nil
}
