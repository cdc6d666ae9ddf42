package transport

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// ConnectOptions says what session to make. The zero value is a new session with a control lane only.
type ConnectOptions struct {
	Lanes     int           // data lanes, 0 to MaxLanes
	Token     Token         // zero: a new one is made
	Resume    bool          // the session of Token was lost: reach its owner again
	Timeout   time.Duration // for all of Connect; default 20 s
	Heartbeat time.Duration // how often one is sent; default 2 s
	Silence   time.Duration // how long nothing may come from the peer; default 10 s
	Throttle  *Throttle     // for what is sent on data lanes; nil: no limit
	Log       *slog.Logger  // nil: discard
}

const defaultConnectTimeout = 20 * time.Second

// dialsAtOnce is how many lanes are dialed at the same time. sshd drops connections at random when more than ten are
// not logged in yet (MaxStartups).
const dialsAtOnce = 4

// Connect makes a session with whoever answers d: the control connection first, and when that is accepted the lanes.
// On an error nothing stays open. The caller closes the session; ctx bounds only the making of it.
func Connect(ctx context.Context, d Dialer, o *ConnectOptions) (Session, error) {
	if o == nil {
		o = &ConnectOptions{}
	}
	if o.Lanes < 0 || o.Lanes > MaxLanes {
		return nil, fmt.Errorf("connect to %s: %d lanes, want 0 to %d", d, o.Lanes, MaxLanes)
	}
	timeout := o.Timeout
	if timeout <= 0 {
		timeout = defaultConnectTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v: %w", timeout, context.DeadlineExceeded))
	defer cancel()
	s, err := connect(ctx, d, o)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("connect to %s: %w", d, err)
	}
	return s, nil
}

func connect(ctx context.Context, d Dialer, o *ConnectOptions) (Session, error) {
	p := Preamble{Kind: KindControl, Token: o.Token, Lanes: uint16(o.Lanes), Attempt: newAttempt()}
	if o.Resume {
		p.Kind = KindResume
	}
	if p.Token == (Token{}) {
		p.Token = NewToken()
	}
	control, err := open(ctx, d, p)
	if err != nil {
		return nil, err
	}
	lanes, err := openLanes(ctx, d, p)
	if err != nil {
		abort(control)
		return nil, err
	}
	return newSession(p, peerName(control, d), control, lanes, settings{
		heartbeat: o.Heartbeat,
		silence:   o.Silence,
		throttle:  o.Throttle,
		log:       o.Log,
	}), nil
}

func newAttempt() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	return binary.BigEndian.Uint32(b[:])
}

// open makes one connection and gets it accepted.
func open(ctx context.Context, d Dialer, p Preamble) (net.Conn, error) {
	conn, err := dial(ctx, d, p)
	if err != nil {
		return nil, err
	}
	err = WritePreamble(ctx, conn, p)
	if err == nil {
		err = ReadAnswer(ctx, conn)
	}
	if err != nil {
		abort(conn)
		return nil, err
	}
	return conn, nil
}

// dial lets a dialer that can tell say on the way that the connection is a lane.
func dial(ctx context.Context, d Dialer, p Preamble) (net.Conn, error) {
	if hinting, ok := d.(interface {
		dialLane(ctx context.Context, t Token) (net.Conn, error)
	}); ok && p.Kind == KindLane {
		return hinting.dialLane(ctx, p.Token)
	}
	return d.DialConn(ctx)
}

func openLanes(ctx context.Context, d Dialer, p Preamble) ([]net.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lanes := make([]net.Conn, p.Lanes)
	slots := make(chan struct{}, dialsAtOnce)
	var wait sync.WaitGroup
	for i := range lanes {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			lane := p
			lane.Kind, lane.Index = KindLane, uint16(i)
			conn, err := open(ctx, d, lane)
			if err != nil {
				cancel(fmt.Errorf("lane %d: %w", i, err)) // the first reason ends the others
				return
			}
			lanes[i] = conn
		})
	}
	wait.Wait()
	if ctx.Err() == nil {
		return lanes, nil
	}
	for _, conn := range lanes {
		if conn != nil {
			abort(conn)
		}
	}
	return nil, context.Cause(ctx)
}

// peerName is who the connection has proved the peer to be, or else the address that led to it.
func peerName(conn net.Conn, d Dialer) string {
	if c, ok := conn.(interface{ PeerName() string }); ok {
		return c.PeerName()
	}
	return d.String()
}
