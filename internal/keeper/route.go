package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/livemigrate/migrate/internal/sys/socket"
	"github.com/livemigrate/migrate/transport"
)

// Router brings accepted connections to the keepers of their sessions, starting one when a session is new. It is all that
// serve and receive do.
type Router struct {
	Places  Places
	Program string   // the migrate program
	Args    []string // of the keeper, but for its socket
	Moves   int      // how many containers are received at once, which bounds the keepers; 0: DefaultMoves
	Stays   bool     // with each connection to its end: this process is the connection's, and its caller hangs up when it ends
	Log     *slog.Logger

	keepers crowd
}

// Route reads the connection's preamble, finds the keeper and copies bytes until the connection ends. It closes conn. peer is
// who has called.
func (r *Router) Route(ctx context.Context, conn net.Conn, peer string) error {
	defer func() { _ = conn.Close() }()
	preamble, err := transport.ReadPreamble(ctx, conn)
	if err != nil {
		return errors.Join(err, transport.WriteAnswer(ctx, conn, err))
	}
	if preamble.Kind == transport.KindLane && !r.Stays && r.hand(r.Places.socket(preamble.Token), conn, string(preamble.Bytes())) {
		return nil
	}
	keeper, err := r.reach(ctx, preamble, peer)
	if err != nil {
		return errors.Join(err, transport.WriteAnswer(ctx, conn, err))
	}
	defer func() { _ = keeper.Close() }()
	if err := transport.WritePreamble(ctx, keeper, preamble); err != nil {
		return err
	}
	return transport.Proxy(ctx, conn, keeper)
}

// reach connects to the keeper of a session. A lane never starts one: its session has one, or is over.
func (r *Router) reach(ctx context.Context, p transport.Preamble, peer string) (net.Conn, error) {
	path := r.Places.socket(p.Token)
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		return conn, nil
	}
	if p.Kind == transport.KindLane {
		return nil, fmt.Errorf("no session for this lane: %w", err)
	}
	leave, err := r.keepers.enter(peer, r.Moves)
	if err != nil {
		return nil, err
	}
	if err := r.start(path, leave); err != nil {
		return nil, err
	}
	r.Log.Info("session begins", "session", p.Token.PublicName(), "kind", p.Kind, "peer", peer)
	return dialer.DialContext(ctx, "unix", path)
}

// startLimit bounds the wait for a keeper to listen.
const startLimit = 15 * time.Second

// start starts a keeper. over is called when its session is, which it says by closing its line.
func (r *Router) start(path string, over func()) (err error) {
	defer func() {
		if err != nil {
			over()
		}
	}()
	if err := r.Places.make(); err != nil {
		return err
	}
	line, theirs, err := socket.Pair()
	if err != nil {
		return fmt.Errorf("start keeper: %w", err)
	}
	child, err := detach(r.Program, append(slices.Clip(r.Args), path), theirs)
	if err != nil {
		return errors.Join(err, line.Close())
	}
	go r.reap(child) // if it ends before us
	err = line.SetReadDeadline(time.Now().Add(startLimit))
	if err == nil {
		err = awaitReady(line)
	}
	if err == nil {
		err = line.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return errors.Join(err, line.Close())
	}
	go func() {
		_, _ = line.Read(make([]byte, 1)) // it says no more
		_ = line.Close()
		over()
	}()
	return nil
}
