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

// control is the control lane. Its frames are read ahead by a goroutine, so that heartbeats are seen, and a dead peer
// noticed, while the caller is busy with the data lanes.
type control struct {
	*lane
	inbox *inbox
	ended chan struct{} // closed when the reader has stopped
}

func newControl(s *session, conn net.Conn, silence time.Duration) *control {
	l := newLane(s, conn, nil) // not throttled: a word of the protocol must not queue behind bulk
	l.limit = MaxControl
	l.r = newFrameReader(&patientReader{conn: conn, patience: silence}, true)
	return &control{lane: l, inbox: newInbox(), ended: make(chan struct{})}
}

func (c *control) Recv(ctx context.Context, buf []byte) ([]byte, error) {
	frame, err := c.inbox.get(ctx, c.session.closed)
	switch {
	case err == nil:
		c.session.received.Add(uint64(headerSize + len(frame)))
		return append(buf[:0], frame...), nil
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	default:
		return nil, c.fault(ctx, "receive", err)
	}
}

// read fills the inbox until the peer says goodbye or the link is lost.
func (c *control) read() {
	defer close(c.ended)
	err := c.readFrames()
	if b := c.broken.Load(); b != nil {
		err = lost(b.err) // a Send broke off and closed the connection under the reader
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w: nothing was heard for %v", ErrPeerSilent, c.session.silence)
	}
	if errors.Is(err, io.EOF) {
		c.session.peerClosed.Store(true)
	} else {
		c.session.fail(err)
	}
	c.inbox.end(err)
}

func (c *control) readFrames() error {
	for {
		kind, n, err := c.r.next()
		if err != nil {
			return err
		}
		switch kind {
		case kindBye:
			return io.EOF
		case kindData:
			frame, err := c.r.payload(nil, n)
			if err != nil {
				return err
			}
			if !c.inbox.put(frame, c.session.closed) {
				continue // closed here: read on for the peer's bye
			}
		}
	}
}

// beat sends heartbeats until the session is over. Unlike Send it takes no ctx and gives up nothing: a heartbeat that
// blocks does so because the peer has much to read from us already.
func (c *control) beat(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if c.send(context.Background(), kindBeat, nil) != nil {
				return // the reader finds out why
			}
		case <-c.session.done:
			return
		}
	}
}

// finish is the lane's, with the difference that the reader goes on reading by itself.
func (c *control) finish(deadline time.Time) {
	if c.bye(deadline) {
		select {
		case <-c.ended:
		case <-time.After(time.Until(deadline)):
		}
	}
	_ = c.conn.Close() // all that matters has been read
	<-c.ended
}

// patientReader gives every read of the connection the same time. It counts reads and not frames, so that a long frame
// on a slow link is no silence; and it counts only while someone waits for the peer.
type patientReader struct {
	conn     net.Conn
	patience time.Duration
}

func (p *patientReader) Read(b []byte) (int, error) {
	if err := p.conn.SetReadDeadline(time.Now().Add(p.patience)); err != nil {
		return 0, err
	}
	return p.conn.Read(b)
}

// inboxLimit is how many bytes of unread frames the control lane holds before it stops reading, which makes the peer's
// Send block.
const inboxLimit = 1 << 20

// inbox is the queue of control frames that the caller has not asked for yet.
type inbox struct {
	mu     sync.Mutex
	frames [][]byte
	bytes  int
	err    error         // what comes after the last frame
	ready  chan struct{} // a frame or err is there
	room   chan struct{} // a frame was taken
}

func newInbox() *inbox {
	return &inbox{ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// put adds a frame, waits while there is no room for it, and reports false when stop came first.
func (i *inbox) put(frame []byte, stop <-chan struct{}) bool {
	const overhead = 64 // empty frames take memory too
	size := len(frame) + overhead
	for {
		i.mu.Lock()
		if i.bytes == 0 || i.bytes+size <= inboxLimit {
			i.frames = append(i.frames, frame)
			i.bytes += size
			i.mu.Unlock()
			poke(i.ready)
			return true
		}
		i.mu.Unlock()
		select {
		case <-i.room:
		case <-stop:
			return false
		}
	}
}

func (i *inbox) end(err error) {
	i.mu.Lock()
	i.err = err
	i.mu.Unlock()
	poke(i.ready)
}

func (i *inbox) get(ctx context.Context, stop <-chan struct{}) ([]byte, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		select {
		case <-stop:
			return nil, ErrClosed
		default:
		}
		if frame, ok, err := i.take(); ok || err != nil {
			return frame, err
		}
		select {
		case <-i.ready:
		case <-ctx.Done():
		case <-stop:
		}
	}
}

func (i *inbox) take() (frame []byte, ok bool, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.frames) == 0 {
		return nil, false, i.err
	}
	frame = i.frames[0]
	i.frames[0] = nil
	i.frames = i.frames[1:]
	i.bytes -= len(frame) + 64
	poke(i.room)
	return frame, true, nil
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
