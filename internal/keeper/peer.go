package keeper

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/transport"
)

// PeerOrder is what a peer's keeper is told by the Router that starts it.
type PeerOrder struct {
	Places

	Socket        string                 // where it listens
	Certificates  transport.Certificates // for lanes of tls:// that are handed over
	CRIU          string
	SystemdCgroup bool
	Feed          bool // take memory in pages
	Debug         bool
}

// idleLimit is how long a keeper without a session waits for one.
const idleLimit = 30 * time.Second

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
	acceptor, err := openDoors(o.Socket, o.Certificates, log)
	if err := errors.Join(ready(line, err), line.Close(), err); err != nil {
		return err
	}
	hub := transport.NewHub(acceptor, &transport.HubOptions{
		Admit: func(context.Context, transport.Preamble, string) error { return nil }, // the router has authenticated it
		Log:   log,
	})
	defer func() { _ = hub.Close() }() // with its sockets
	p := &peer{order: o, hub: hub, log: log, host: &host{order: o, log: log}}
	return p.run(ctx)
}

// peer serves the sessions of one move.
type peer struct {
	order *PeerOrder
	hub   *transport.Hub
	host  *host
	log   *slog.Logger

	busy    sync.WaitGroup
	receive *handover.Receive
}

// run accepts sessions until the one that brought a container, if any, has ended and every question was answered.
func (p *peer) run(ctx context.Context) error {
	received := make(chan error, 1)
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	idle := time.AfterFunc(idleLimit, stop)
	defer idle.Stop()
	for {
		s, err := p.hub.Accept(waiting)
		if err != nil {
			break
		}
		switch {
		case s.Resumed():
			receive := p.receive
			p.busy.Go(func() { p.answer(ctx, s, receive) })
		case p.receive == nil:
			idle.Stop()
			p.receive = &handover.Receive{Host: p.host, Journals: p.order.Journals, Root: p.order.Root, Log: p.log}
			go func() {
				received <- p.receive.Run(ctx, session{s})
				stop()
			}()
		default:
			p.log.Warn("a second container on one session")
			_ = s.Close()
		}
	}
	p.busy.Wait()
	if p.receive == nil {
		return nil
	}
	if err := <-received; err != nil {
		p.log.Info("not received", "container", p.receive.Container(), "reason", err)
		return nil
	}
	p.log.Info("received", "container", p.receive.Container())
	// This process may become the monitor without ever returning: who asks from now on gets another keeper.
	if err := p.hub.Close(); err != nil {
		p.log.Warn("stop listening", "error", err)
	}
	return p.host.watch(ctx)
}

func (p *peer) answer(ctx context.Context, s transport.Session, receive *handover.Receive) {
	defer func() { _ = s.Close() }()
	if err := handover.Answer(ctx, p.host, p.order.Journals, session{s}, receive); err != nil {
		p.log.Warn("answer how the move ended", "error", err)
	}
}
