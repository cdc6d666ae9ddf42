package keeper

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/transport"
)

// PeerOrder is what a peer's keeper is told by the Router that starts it.
type PeerOrder struct {
	Places

	Socket        string                 // where it listens
	Certificates  transport.Certificates // for lanes of tls:// that are handed over
	Allow         []string               // the callers that may bring such lanes; empty: all of that authority
	Limits        Limits
	CRIU          string
	SystemdCgroup bool
	Feed          bool // take memory in pages
	Debug         bool
}

// idleLimit is how long a keeper without a session waits for one.
const idleLimit = 30 * time.Second

// answeredLimit is how long a keeper that was only asked waits for another question.
const answeredLimit = time.Second

// RunPeer is the peer's keeper: it receives one container, or answers how the move of one ended, and returns then. The
// process may be replaced by the container's monitor instead of returning.
func RunPeer(ctx context.Context, o *PeerOrder) error {
	line, err := openLine()
	if err != nil {
		return err
	}
	log, closeLog, err := o.openLog("receive", o.Debug)
	if err != nil {
		return errors.Join(ready(line, err), line.Close(), err)
	}
	defer closeLog()
	leaveCgroups(log)
	acceptor, err := openDoors(o, log)
	if err := errors.Join(ready(line, err), err); err != nil {
		return errors.Join(err, line.Close())
	}
	defer func() { _ = line.Close() }() // until then the router counts it
	hub := transport.NewHub(acceptor, &transport.HubOptions{
		Admit: func(context.Context, transport.Preamble, string) error { return nil }, // the router has authenticated it
		Log:   log,
	})
	defer func() { _ = hub.Close() }() // with its sockets
	p := &peer{line: line, hub: hub, log: log, host: &host{order: o, log: log}, received: make(chan error, 1)}
	p.desk = &handover.Desk{Host: p.host, Journals: o.Journals, Log: log, Adopted: p.adopt}
	return p.run(ctx)
}

// peer serves the sessions of one move.
type peer struct {
	line io.Closer // to the router, for which the move is over when it is closed
	hub  *transport.Hub
	host *host
	desk *handover.Desk
	log  *slog.Logger

	busy     sync.WaitGroup
	idle     *time.Timer
	stop     context.CancelFunc
	received chan error
	receive  atomic.Pointer[handover.Receive]
	adopted  bool // by the time that received tells
}

// run accepts sessions until the container that one brought, or asked for, has all that it needs, and every question was answered.
func (p *peer) run(ctx context.Context) error {
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	p.stop = stop
	p.idle = time.AfterFunc(idleLimit, stop)
	defer p.idle.Stop()
	for {
		s, err := p.hub.Accept(waiting)
		if err != nil {
			break
		}
		switch {
		case s.Resumed():
			p.busy.Go(func() {
				p.answer(ctx, s)
				if p.receive.Load() == nil {
					p.idle.Reset(answeredLimit)
				}
			})
		case p.receive.Load() == nil:
			p.idle.Stop()
			receive := &handover.Receive{Host: p.host, Journals: p.host.order.Journals, Root: p.host.order.Root, Limits: p.host.order.Limits.handover(), Log: p.log}
			p.receive.Store(receive)
			p.desk.Receives(receive)
			go func() {
				p.received <- receive.Run(ctx, session{s})
				stop()
			}()
		default:
			p.log.Warn("a second container on one session")
			_ = s.Close()
		}
	}
	p.busy.Wait()
	p.host.feeding.Wait()
	receive := p.receive.Load()
	if receive == nil {
		return nil
	}
	if err := <-p.received; err != nil {
		p.log.Info("not received", "container", receive.Container(), "reason", err)
		return nil
	}
	p.log.Info("received", "container", receive.Container())
	if p.adopted {
		return nil // its output went with the keeper that was its monitor's
	}
	// This process may become the monitor without ever returning: who asks from now on gets another keeper.
	if err := p.hub.Close(); err != nil {
		p.log.Warn("stop listening", "error", err)
	}
	_ = p.line.Close() // what lives on is a monitor
	return p.host.watch(ctx)
}

// adopt goes on with a container whose keeper is gone.
func (p *peer) adopt(r *handover.Receive) {
	p.idle.Stop()
	p.adopted = true
	p.receive.Store(r)
	go func() {
		p.received <- r.Settle(context.Background())
		p.stop()
	}()
}

func (p *peer) answer(ctx context.Context, s transport.Session) {
	defer func() { _ = s.Close() }()
	if err := p.desk.Answer(ctx, session{s}); err != nil {
		p.log.Warn("answer how the move ended", "error", err)
	}
}
