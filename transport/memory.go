package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Memory returns a dialer and an acceptor that meet inside this process: the schemes' twin for tests, with the same
// framing, blocking and closing, and no descriptor.
func Memory() (Dialer, Acceptor) {
	m := &memory{calls: make(chan net.Conn), closed: make(chan struct{})}
	return memoryDialer{m}, memoryAcceptor{m}
}

// Pipe returns the two ends of a session inside this process. The caller closes both.
func Pipe(o *ConnectOptions) (dialed, accepted Session, err error) {
	d, a := Memory()
	var hub HubOptions
	if o != nil {
		hub = HubOptions{Heartbeat: o.Heartbeat, Silence: o.Silence, Log: o.Log}
	}
	hub.Admit = func(context.Context, Preamble, string) error { return nil } // also a session that says it resumes
	h := NewHub(a, &hub)
	ctx := context.Background()
	dialed, err = Connect(ctx, d, o)
	if err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	accepted, err = h.Accept(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, dialed.Close(), h.Close())
	}
	return dialed, accepted, h.Close()
}

const memoryName = "memory"

type memory struct {
	calls  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

type memoryDialer struct{ *memory }

func (m memoryDialer) String() string { return memoryName }

func (m memoryDialer) DialConn(ctx context.Context) (net.Conn, error) {
	ours, theirs := memoryPair()
	select {
	case m.calls <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("dial: %w", ctx.Err())
	case <-m.closed:
		return nil, fmt.Errorf("dial: %w", net.ErrClosed)
	}
}

type memoryAcceptor struct{ *memory }

func (m memoryAcceptor) Addr() string { return memoryName }

func (m memoryAcceptor) AcceptConn(ctx context.Context) (net.Conn, string, error) {
	select {
	case conn := <-m.calls:
		return conn, memoryName, nil
	case <-ctx.Done():
		return nil, "", fmt.Errorf("accept connection: %w", ctx.Err())
	case <-m.closed:
		return nil, "", fmt.Errorf("accept connection: %w", net.ErrClosed)
	}
}

func (m memoryAcceptor) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

// memoryConn is one end of a stream: it reads from one pipe and writes to the other.
type memoryConn struct {
	in, out *memoryPipe
}

func memoryPair() (net.Conn, net.Conn) {
	a, b := newMemoryPipe(), newMemoryPipe()
	return &memoryConn{in: a, out: b}, &memoryConn{in: b, out: a}
}

func (c *memoryConn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *memoryConn) Write(b []byte) (int, error) { return c.out.write(b) }
func (c *memoryConn) CloseWrite() error           { c.out.end(); return nil }
func (c *memoryConn) Close() error                { c.in.shut(); c.out.end(); return nil }
func (c *memoryConn) LocalAddr() net.Addr         { return memoryAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr        { return memoryAddr{} }
func (c *memoryConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	return nil
}

func (c *memoryConn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

func (c *memoryConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

type memoryAddr struct{}

func (memoryAddr) Network() string { return memoryName }
func (memoryAddr) String() string  { return memoryName }

// memoryPipeSize is how much a pipe holds unread, like a socket's buffer.
const memoryPipeSize = 64 << 10

// memoryPipe is one direction of a stream.
type memoryPipe struct {
	mu      sync.Mutex
	changed sync.Cond
	b       []byte
	ended   bool // by the writer: what is left can be read
	shutOff bool // by the reader: writes fail
	readBy  time.Time
	writeBy time.Time
}

func newMemoryPipe() *memoryPipe {
	p := &memoryPipe{}
	p.changed.L = &p.mu
	return p
}

func (p *memoryPipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.shutOff:
			return 0, net.ErrClosed
		case expired(p.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(p.b) > 0:
			n := copy(b, p.b)
			p.b = append(p.b[:0], p.b[n:]...)
			p.changed.Broadcast()
			return n, nil
		case p.ended:
			return 0, io.EOF
		}
		p.changed.Wait()
	}
}

func (p *memoryPipe) write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	written := 0
	for {
		switch {
		case p.ended:
			return written, net.ErrClosed
		case p.shutOff:
			return written, io.ErrClosedPipe
		case expired(p.writeBy):
			return written, os.ErrDeadlineExceeded
		}
		n := min(len(b), memoryPipeSize-len(p.b))
		p.b = append(p.b, b[:n]...)
		b = b[n:]
		written += n
		if n > 0 {
			p.changed.Broadcast()
		}
		if len(b) == 0 {
			return written, nil
		}
		p.changed.Wait()
	}
}

func (p *memoryPipe) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.changed.Broadcast()
}

func (p *memoryPipe) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shutOff, p.b = true, nil
	p.changed.Broadcast()
}

func (p *memoryPipe) setDeadline(field *time.Time, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*field = t
	p.changed.Broadcast()
	if wait := time.Until(t); wait > 0 {
		// The waker of a deadline that was moved meanwhile wakes for nothing.
		time.AfterFunc(wait, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.changed.Broadcast()
		})
	}
}

func expired(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }
