package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// HubOptions says which sessions a Hub takes. nil means the defaults.
type HubOptions struct {
	// Admit decides about a new session (KindControl) or one that comes back (KindResume), before it is accepted. An
	// error refuses it, and its text reaches the dialer. nil admits every new token, and to resume the tokens of sessions
	// that this hub has had, from the same peer.
	Admit func(ctx context.Context, p Preamble, peer string) error
	// MaxSessions is how many sessions may be alive, incomplete or not yet accepted at one time; default 16.
	MaxSessions int
	Heartbeat   time.Duration // how often one is sent; default 2 s
	Silence     time.Duration // how long nothing may come from the peer; default 10 s
	Throttle    *Throttle     // for what is sent on data lanes; nil: no limit
	Log         *slog.Logger  // nil: discard
}

const (
	defaultMaxSessions = 16
	// formingTimeout is how long the lanes of a session may take to arrive after its control connection.
	formingTimeout = 20 * time.Second
	// maxKnown is how many tokens a hub remembers to be resumed.
	maxKnown = 1024
)

// Hub puts accepted connections together to sessions.
type Hub struct {
	acceptor Acceptor
	o        HubOptions
	ready    chan *session
	ctx      context.Context // ends with Close; the hub's goroutines live by it
	stop     context.CancelCauseFunc
	wait     sync.WaitGroup

	mu      sync.Mutex
	forming map[Token]*forming
	live    map[Token]*session
	known   map[Token]string // the peer that made it
	oldest  []Token          // of known, in order of coming
}

// forming is a session whose lanes have not all arrived.
type forming struct {
	preamble Preamble
	peer     string
	control  net.Conn
	lanes    []net.Conn
	missing  int
	expiry   *time.Timer
}

// NewHub takes over the acceptor and begins to accept at once. Close ends both.
func NewHub(a Acceptor, o *HubOptions) *Hub {
	h := &Hub{acceptor: a, forming: map[Token]*forming{}, live: map[Token]*session{}, known: map[Token]string{}}
	if o != nil {
		h.o = *o
	}
	if h.o.MaxSessions <= 0 {
		h.o.MaxSessions = defaultMaxSessions
	}
	if h.o.Log == nil {
		h.o.Log = slog.New(slog.DiscardHandler)
	}
	h.ready = make(chan *session, h.o.MaxSessions)
	h.ctx, h.stop = context.WithCancelCause(context.Background())
	h.wait.Go(h.acceptAll)
	return h
}

// Accept returns the next complete session, new or resumed. The caller closes it.
func (h *Hub) Accept(ctx context.Context) (Session, error) {
	select {
	case s := <-h.ready:
		return s, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("accept session: %w", ctx.Err())
	case <-h.ctx.Done():
		return nil, fmt.Errorf("accept session: %w", context.Cause(h.ctx))
	}
}

// Close stops accepting and drops what is incomplete or was not asked for. Sessions that Accept has returned live on.
func (h *Hub) Close() error {
	h.stop(net.ErrClosed)
	err := h.acceptor.Close()
	h.wait.Wait()
	for {
		select {
		case s := <-h.ready:
			s.fail(ErrClosed)
		default:
			return err
		}
	}
}

func (h *Hub) acceptAll() {
	for {
		conn, peer, err := h.acceptor.AcceptConn(h.ctx)
		if err != nil {
			h.stop(err)
			h.dropForming()
			return
		}
		h.wait.Go(func() {
			if err := h.welcome(conn, peer); err != nil {
				h.o.Log.Warn("connection refused", "peer", peer, "cause", err)
				abort(conn)
			}
		})
	}
}

// welcome reads a connection's preamble, finds its place, and answers.
func (h *Hub) welcome(conn net.Conn, peer string) error {
	p, err := ReadPreamble(h.ctx, conn)
	if errors.Is(err, ErrLinkLost) || errors.Is(err, context.Canceled) {
		return err
	}
	if err == nil && p.Kind != KindLane {
		err = h.admit(p, peer)
	}
	if err == nil {
		err = h.place(p, peer, conn)
	}
	if err != nil {
		return errors.Join(err, WriteAnswer(h.ctx, conn, err))
	}
	if err := WriteAnswer(h.ctx, conn, nil); err != nil {
		h.drop(p)
		return err
	}
	h.arrived(p)
	return nil
}

func (h *Hub) admit(p Preamble, peer string) error {
	if h.o.Admit != nil {
		return h.o.Admit(h.ctx, p, peer)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	owner, known := h.known[p.Token]
	switch {
	case p.Kind == KindControl && known:
		return ErrTokenInUse
	case p.Kind == KindResume && (!known || owner != peer):
		return ErrUnknownToken // the same answer for both: a stranger learns nothing about tokens
	}
	return nil
}

// place puts a connection where it belongs. Only arrived makes it count, when it has been answered.
func (h *Hub) place(p Preamble, peer string, conn net.Conn) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		return ErrBusy
	}
	if p.Kind == KindLane {
		return h.placeLane(p, peer, conn)
	}
	if f := h.forming[p.Token]; f != nil {
		if p.Kind != KindResume {
			return ErrTokenInUse
		}
		h.forget(f) // the dialer has given that attempt up
	}
	if s := h.live[p.Token]; s != nil {
		if p.Kind != KindResume {
			return ErrTokenInUse
		}
		go s.fail(ErrSuperseded) // takes h.mu when it ends
		delete(h.live, p.Token)
	}
	if len(h.forming)+len(h.live) >= h.o.MaxSessions {
		return fmt.Errorf("%w: %d sessions", ErrBusy, h.o.MaxSessions)
	}
	f := &forming{preamble: p, peer: peer, control: conn, lanes: make([]net.Conn, p.Lanes), missing: int(p.Lanes) + 1}
	f.expiry = time.AfterFunc(formingTimeout, func() { h.drop(p) })
	h.forming[p.Token] = f
	return nil
}

func (h *Hub) placeLane(p Preamble, peer string, conn net.Conn) error {
	f := h.forming[p.Token]
	switch {
	case f == nil || f.preamble.Attempt != p.Attempt || f.peer != peer:
		return ErrUnknownToken
	case f.preamble.Lanes != p.Lanes || f.lanes[p.Index] != nil:
		return fmt.Errorf("%w: lane %d of %d comes twice", ErrRefused, p.Index, p.Lanes)
	}
	f.lanes[p.Index] = conn
	return nil
}

// arrived counts an answered connection; the last one completes the session.
func (h *Hub) arrived(p Preamble) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.forming[p.Token]
	if f == nil || f.preamble.Attempt != p.Attempt {
		return // dropped meanwhile
	}
	if f.missing--; f.missing > 0 {
		return
	}
	f.expiry.Stop()
	delete(h.forming, p.Token)
	h.remember(p.Token, f.peer)
	s := newSession(f.preamble, f.peer, f.control, f.lanes, settings{
		heartbeat: h.o.Heartbeat,
		silence:   h.o.Silence,
		throttle:  h.o.Throttle,
		log:       h.o.Log,
		onEnd:     h.ended,
	})
	h.live[p.Token] = s
	select {
	case h.ready <- s:
	default:
		go s.fail(ErrBusy) // nobody calls Accept; fail takes h.mu when it ends
	}
}

func (h *Hub) remember(t Token, peer string) {
	if _, ok := h.known[t]; !ok {
		h.oldest = append(h.oldest, t)
	}
	h.known[t] = peer
	if len(h.oldest) > maxKnown {
		delete(h.known, h.oldest[0])
		h.oldest = slices.Delete(h.oldest, 0, 1)
	}
}

func (h *Hub) ended(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live[s.token] == s {
		delete(h.live, s.token)
	}
}

// drop gives up the attempt that p belongs to.
func (h *Hub) drop(p Preamble) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.forming[p.Token]; f != nil && f.preamble.Attempt == p.Attempt {
		h.forget(f)
	}
}

func (h *Hub) dropForming() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.forming {
		h.forget(f)
	}
}

func (h *Hub) forget(f *forming) {
	f.expiry.Stop()
	delete(h.forming, f.preamble.Token)
	abort(f.control)
	for _, conn := range f.lanes {
		if conn != nil {
			abort(conn)
		}
	}
}
