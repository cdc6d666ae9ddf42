package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Lane is an ordered channel of frames in both directions. One goroutine may send while another receives; more than
// one of either must take turns by themselves.
type Lane interface {
	// Send sends the concatenation of parts as one frame, without copying them together where the connection allows it.
	// It blocks while the peer does not read. The parts are free again when it returns. The frame has at most MaxFrame
	// bytes, MaxControl on the control lane. A ctx that ends when part of the frame is gone breaks this lane.
	Send(ctx context.Context, parts ...[]byte) error
	// Recv returns the next frame, in buf's memory if its capacity is enough and else in new memory. io.EOF: the peer has
	// closed the session properly. A ctx that ends before the next frame has begun to come does no harm; one that ends
	// inside a frame breaks this lane.
	Recv(ctx context.Context, buf []byte) ([]byte, error)
}

// lane is a data lane, and the sending half of the control lane.
type lane struct {
	session *session
	conn    net.Conn

	writing  chan struct{} // a lock that can be waited for with a ctx
	w        frameWriter
	limit    int
	throttle *Throttle

	reading sync.Mutex
	r       *frameReader
	heard   error // io.EOF after the peer's bye; under reading

	broken atomic.Pointer[laneError]
}

// laneError is why a lane can be used no more.
type laneError struct{ err error }

func newLane(s *session, conn net.Conn, throttle *Throttle) *lane {
	return &lane{
		session:  s,
		conn:     conn,
		writing:  make(chan struct{}, 1),
		w:        frameWriter{conn: conn},
		limit:    MaxFrame,
		throttle: throttle,
		r:        newFrameReader(conn, false),
	}
}

func (l *lane) Send(ctx context.Context, parts ...[]byte) error {
	n := length(parts)
	if n > l.limit {
		return fmt.Errorf("send: %w: %d bytes, at most %d", ErrFrameTooLarge, n, l.limit)
	}
	if err := l.throttle.wait(ctx, l.session.done, headerSize+n); err != nil {
		return l.fault(ctx, "send", err)
	}
	if err := l.send(ctx, kindData, parts); err != nil {
		return l.fault(ctx, "send", err)
	}
	l.session.sent.Add(uint64(headerSize + n))
	return nil
}

func (l *lane) send(ctx context.Context, kind byte, parts [][]byte) error {
	select {
	case l.writing <- struct{}{}:
		defer func() { <-l.writing }()
	case <-ctx.Done():
		return ctx.Err()
	case <-l.session.done:
		return ErrClosed
	}
	if err := l.usable(ctx); err != nil {
		return err
	}
	release := interrupt(ctx, l.conn.SetWriteDeadline)
	n, err := l.w.write(kind, parts)
	release()
	if err == nil {
		return nil
	}
	_, own := l.conn.(buffersWriter) // a timeout has spoilt a TLS stream, whatever it says it wrote
	if n == 0 && !own && ctx.Err() != nil {
		return ctx.Err()
	}
	return l.breakDown(ctxError(ctx, lost(err)))
}

// usable returns the error of a lane on which nothing can be started any more.
func (l *lane) usable(ctx context.Context) error {
	if b := l.broken.Load(); b != nil {
		return b.err
	}
	if l.session.over() {
		return ErrClosed
	}
	return ctx.Err()
}

func (l *lane) Recv(ctx context.Context, buf []byte) ([]byte, error) {
	l.reading.Lock()
	defer l.reading.Unlock()
	if l.heard != nil {
		return nil, l.heard
	}
	if b := l.broken.Load(); b != nil {
		return nil, l.fault(ctx, "receive", b.err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	if l.session.over() {
		return nil, l.fault(ctx, "receive", ErrClosed)
	}
	release := interrupt(ctx, l.conn.SetReadDeadline)
	frame, err := l.recv(ctx, buf)
	release()
	switch {
	case err == nil:
		l.session.received.Add(uint64(headerSize + len(frame)))
		return frame, nil
	case errors.Is(err, io.EOF):
		l.heard = io.EOF
		return nil, io.EOF
	default:
		return nil, l.fault(ctx, "receive", err)
	}
}

func (l *lane) recv(ctx context.Context, buf []byte) ([]byte, error) {
	kind, n, err := l.r.next()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, ctxError(ctx, err) // interrupted between two frames
	}
	if err != nil {
		return nil, l.breakDown(err)
	}
	if kind == kindBye {
		return nil, io.EOF
	}
	frame, err := l.r.payload(buf, n)
	if err != nil {
		return nil, l.breakDown(ctxError(ctx, err))
	}
	return frame, nil
}

// breakDown ends the use of a lane whose stream is out of step. The connection is closed at once, so that the peer does
// not wait for the rest of a frame; the other lanes go on, or else an abort could not be told to the peer.
func (l *lane) breakDown(err error) error {
	l.broken.CompareAndSwap(nil, &laneError{err})
	abort(l.conn)
	return err
}

// fault says what went wrong in the caller's words: why the session is over, if it is, rather than what that did here.
func (l *lane) fault(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return fmt.Errorf("%s: %w", op, err)
	}
	if cause := l.session.Err(); cause != nil {
		return fmt.Errorf("%s: %w", op, cause)
	}
	if op == "send" && l.session.peerClosed.Load() {
		return fmt.Errorf("%s: %w", op, ErrPeerClosed)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// byePatience is how long Close lets a Send end by itself that another goroutine has under way.
const byePatience = 100 * time.Millisecond

// finish says goodbye and waits until the peer has said it too, so that closing the connection destroys nothing that is
// still under way: a socket closed with unread data in it resets the stream. The session is over already.
func (l *lane) finish(deadline time.Time) {
	_ = l.conn.SetReadDeadline(past) // wakes a Recv that is still blocked
	if l.bye(deadline) {
		l.drain(deadline)
	}
	_ = l.conn.Close() // all that matters has been read
}

// bye sends the last frame and reports whether the peer will see it.
func (l *lane) bye(deadline time.Time) bool {
	select {
	case l.writing <- struct{}{}:
	case <-time.After(byePatience):
		_ = l.conn.SetWriteDeadline(past)
		l.writing <- struct{}{}
	}
	defer func() { <-l.writing }()
	if l.broken.Load() != nil {
		return false
	}
	_ = l.conn.SetWriteDeadline(deadline)
	_, err := l.w.write(kindBye, nil)
	return err == nil && closeWrite(l.conn) == nil
}

func (l *lane) drain(deadline time.Time) {
	l.reading.Lock()
	defer l.reading.Unlock()
	_ = l.conn.SetReadDeadline(deadline)
	_, _ = io.Copy(io.Discard, l.r.r) // until the peer closes too, or time is up
}
