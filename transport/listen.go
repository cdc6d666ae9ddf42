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
	// Divert is offered each lane of a tls:// session before its handshake, with the public name of the session. It takes
	// the connection over, and closes it, when it returns true; AcceptTLS makes the handshake then. nil diverts nothing.
	Divert   func(session string, conn net.Conn) bool
	MaxConns int          // how many connections may be open at one time; default 256
	Log      *slog.Logger // nil: discard. Callers that are dropped are logged
}

const (
	defaultMaxConns = 256
	// maxStrangers is how many callers may be busy proving who they are.
	maxStrangers = 64
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
	listener net.Listener
	addr     string
	greet    greeter
	divert   func(ctx context.Context, conn net.Conn) bool // nil: never
	log      *slog.Logger
	places   chan struct{} // one for each open connection
	proving  chan struct{} // one for each caller that is not known yet
	known    chan caller
	ctx      context.Context // ends with Close
	stop     context.CancelFunc
	wait     sync.WaitGroup
}

type caller struct {
	conn net.Conn
	name string
}

func newAcceptor(l net.Listener, addr string, greet greeter, divert func(context.Context, net.Conn) bool, o *ListenOptions) *acceptor {
	a := &acceptor{
		listener: l,
		addr:     addr,
		greet:    greet,
		divert:   divert,
		log:      o.Log,
		places:   make(chan struct{}, o.MaxConns),
		proving:  make(chan struct{}, maxStrangers),
		known:    make(chan caller),
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
			a.log.Warn("cannot accept", "address", a.addr, "cause", err)
			a.pause()
			continue
		}
		if cause := a.admit(); cause != "" {
			a.log.Warn("connection dropped", "caller", conn.RemoteAddr(), "cause", cause)
			_ = conn.Close() // dropped on purpose
			continue
		}
		a.wait.Go(func() { a.meet(conn) })
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

// admit takes a place for a caller, or says why there is none.
func (a *acceptor) admit() string {
	select {
	case a.places <- struct{}{}:
	default:
		return "too many connections"
	}
	select {
	case a.proving <- struct{}{}:
		return ""
	default:
		<-a.places
		return "too many callers that are not known yet"
	}
}

// meet finds out who calls and hands the connection to AcceptConn.
func (a *acceptor) meet(conn net.Conn) {
	release := sync.OnceFunc(func() { <-a.places })
	ctx, cancel := context.WithTimeout(a.ctx, openingTimeout)
	defer cancel()
	if a.divert != nil && a.divert(ctx, conn) {
		<-a.proving
		release()
		return
	}
	greeted, name, err := a.greet(ctx, conn, release)
	<-a.proving
	if err != nil {
		a.log.Warn("caller refused", "caller", conn.RemoteAddr(), "address", a.addr, "cause", err)
		_ = conn.Close() // refused
		release()
		return
	}
	select {
	case a.known <- caller{greeted, name}:
	case <-a.ctx.Done():
		abort(greeted)
	}
}
