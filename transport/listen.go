package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Acceptor is where peers call.
type Acceptor interface {
	// AcceptConn returns the next connection whose caller has proved who it is, and who that is. A caller that fails to,
	// or takes longer than ten seconds over it, is dropped and delays nobody else.
	AcceptConn(ctx context.Context) (conn net.Conn, peer string, err error)
	// Addr is the address to dial.
	Addr() string
	// Close stops accepting. Accepted connections live on.
	Close() error
}

// ListenOptions holds what the schemes need. nil means the defaults.
type ListenOptions struct {
	Certificates Certificates // for tls://; read again for each connection, so that renewed ones need no restart
	// Allow are the callers that tls:// takes: each the common name, a host name or an IP address of a certificate, exactly as
	// it stands there. Empty: whoever has a certificate of the authority.
	Allow []string
	// Divert is offered each lane of a tls:// session before its handshake, with the public name of the session. It takes
	// the connection over, and closes it, when it returns true; AcceptTLS makes the handshake then. nil diverts nothing.
	Divert   func(session string, conn net.Conn) bool
	MaxConns int          // how many connections may be open at one time; default 256. One peer has half of them at most
	Log      *slog.Logger // nil: discard. Callers that are dropped are logged
}

const (
	defaultMaxConns = 256
	// maxStrangers is how many callers may be busy proving who they are.
	maxStrangers = 128
)

// Listen waits for peers at a tls:// or unix:// address. ssh:// has sshd for that. A stale unix socket, one that
// nobody listens on, is replaced.
func Listen(addr Address, o *ListenOptions) (Acceptor, error) {
	var opts ListenOptions
	if o != nil {
		opts = *o
	}
	if opts.MaxConns <= 0 {
		opts.MaxConns = defaultMaxConns
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	a, err := listen(addr, &opts)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return a, nil
}

func listen(addr Address, o *ListenOptions) (Acceptor, error) {
	switch addr.Scheme {
	case TLS:
		return listenTLS(addr, o)
	case Unix:
		return listenUnix(addr, o)
	case SSH:
		return nil, errors.New("ssh:// needs no listener: sshd starts `migrate receive`")
	default:
		return nil, errors.New("not an address")
	}
}

// greeter proves who a caller is. release must be called when the connection it returns is closed, once.
type greeter func(ctx context.Context, conn net.Conn, release func()) (net.Conn, string, error)

// acceptor accepts for a listener and lets callers prove who they are side by side.
type acceptor struct {
	listener  net.Listener
	addr      string
	greet     greeter
	divert    func(ctx context.Context, conn net.Conn) bool // nil: never
	complain  complaints
	strangers *Strangers
	guests    *guests
	known     chan caller
	ctx       context.Context // ends with Close
	stop      context.CancelFunc
	wait      sync.WaitGroup
}

type caller struct {
	conn net.Conn
	name string
}

func newAcceptor(l net.Listener, addr string, greet greeter, divert func(context.Context, net.Conn) bool, o *ListenOptions) *acceptor {
	a := &acceptor{
		listener:  l,
		addr:      addr,
		greet:     greet,
		divert:    divert,
		complain:  complaints{log: o.Log},
		strangers: NewStrangers(maxStrangers),
		guests:    &guests{most: o.MaxConns, of: make(map[string]int)},
		known:     make(chan caller),
	}
	a.ctx, a.stop = context.WithCancel(context.Background())
	a.wait.Go(a.acceptAll)
	return a
}

func (a *acceptor) Addr() string { return a.addr }

func (a *acceptor) AcceptConn(ctx context.Context) (net.Conn, string, error) {
	select {
	case c := <-a.known:
		return c.conn, c.name, nil
	case <-ctx.Done():
		return nil, "", fmt.Errorf("accept connection: %w", ctx.Err())
	case <-a.ctx.Done():
		return nil, "", fmt.Errorf("accept connection: %w", net.ErrClosed)
	}
}

func (a *acceptor) Close() error {
	a.stop()
	err := a.listener.Close()
	a.wait.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (a *acceptor) acceptAll() {
	for {
		conn, err := a.listener.Accept()
		if a.ctx.Err() != nil {
			if err == nil {
				_ = conn.Close() // came too late
			}
			return
		}
		if err != nil {
			a.complain.warn("cannot accept", "address", a.addr, "cause", err)
			a.pause()
			continue
		}
		leave, dropped := a.strangers.Enter(conn)
		if dropped != nil {
			a.complain.warn("connection dropped", "caller", dropped, "cause", "too many callers that are not known yet")
		}
		a.wait.Go(func() { a.meet(conn, leave) })
	}
}

// acceptPause keeps a lasting failure, such as no descriptors left, from becoming a busy loop.
const acceptPause = 100 * time.Millisecond

func (a *acceptor) pause() {
	select {
	case <-time.After(acceptPause):
	case <-a.ctx.Done():
	}
}

// meet finds out who calls and hands the connection to AcceptConn.
func (a *acceptor) meet(conn net.Conn, leave func() bool) {
	ctx, cancel := context.WithTimeout(a.ctx, openingTimeout)
	defer cancel()
	if a.divert != nil && a.divert(ctx, conn) {
		leave()
		return
	}
	var name string
	release := sync.OnceFunc(func() { a.guests.leave(name) })
	greeted, name, err := a.greet(ctx, conn, release)
	if err == nil {
		if err = a.guests.enter(name); err != nil {
			err = errors.Join(err, WriteAnswer(ctx, greeted, err))
		}
	}
	stayed := leave()
	switch {
	case err != nil:
		if stayed { // that one was dropped has been said
			a.complain.warn("caller refused", "caller", conn.RemoteAddr(), "address", a.addr, "cause", err)
		}
		_ = conn.Close() // refused
		return
	case !stayed: // dropped in its last moment
		abort(greeted)
		return
	}
	select {
	case a.known <- caller{greeted, name}:
	case <-a.ctx.Done():
		abort(greeted)
	}
}

// guests are the open connections of callers that are known.
type guests struct {
	most int // in all

	mu  sync.Mutex
	all int
	of  map[string]int // by the peer's name
}

// enter takes a place for one more connection. ErrBusy when there is none: one peer may have half of them, so that it can
// keep no other one out.
func (g *guests) enter(name string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch share := max(1, g.most/2); {
	case g.all >= g.most:
		return fmt.Errorf("%w: %d are open, which is the limit", ErrBusy, g.all)
	case g.most > 2 && g.of[name] >= share:
		return fmt.Errorf("%w: %d of %q are open, which is the limit for one peer", ErrBusy, share, name)
	}
	g.all++
	g.of[name]++
	return nil
}

func (g *guests) leave(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if g.of[name]--; g.of[name] == 0 {
		delete(g.of, name)
	}
}
