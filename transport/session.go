package transport

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Session is an authenticated connection of two processes: one control lane and any number of data lanes. Both sides
// have the same lanes in the same order.
type Session interface {
	// Control is the lane for the words of the caller's protocol. Heartbeats run on it unseen.
	Control() Lane
	// Lanes are the data lanes.
	Lanes() []Lane
	// Token names the session on both sides, and resumes it.
	Token() Token
	// Resumed says that the dialer came back with the token of a lost session.
	Resumed() bool
	// Peer is who the other side has proved to be: the name in its certificate, its user id on a unix socket, the
	// address that was dialed over ssh.
	Peer() string
	// Sent and Received count the bytes of all frames, of all lanes, headers included.
	Sent() uint64
	Received() uint64
	// Done is closed when the session is over: closed here, lost, or the peer silent.
	Done() <-chan struct{}
	// Err is nil until Done is closed; then ErrClosed, or what ended the session.
	Err() error
	// Close says goodbye to the peer, waits up to two seconds until it has taken what was sent and closes too, and frees
	// everything. Calls of Send and Recv that are still blocked return ErrClosed.
	Close() error
}

// closePatience is how long Close waits for the peer.
const closePatience = 2 * time.Second

type session struct {
	token     Token
	resumed   bool
	peer      string
	control   *control
	lanes     []Lane
	data      []*lane
	silence   time.Duration
	log       *slog.Logger
	sent      atomic.Uint64
	received  atomic.Uint64
	onEnd     func(*session)
	closeOnce sync.Once

	peerClosed atomic.Bool
	mu         sync.Mutex
	cause      error         // why done is closed
	done       chan struct{} // over, for any reason
	closed     chan struct{} // over because Close was called
}

// settings are what both ConnectOptions and HubOptions say about a session.
type settings struct {
	heartbeat, silence time.Duration
	throttle           *Throttle
	log                *slog.Logger
	onEnd              func(*session)
}

func (s *settings) fill() {
	if s.heartbeat <= 0 {
		s.heartbeat = defaultHeartbeat
	}
	if s.silence <= 0 {
		s.silence = defaultSilence
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.onEnd == nil {
		s.onEnd = func(*session) {}
	}
}

// newSession takes connections over whose preambles are exchanged, and starts the heartbeats.
func newSession(p Preamble, peer string, conn net.Conn, lanes []net.Conn, o settings) *session {
	o.fill()
	s := &session{
		token:   p.Token,
		resumed: p.Kind == KindResume,
		peer:    peer,
		silence: o.silence,
		log:     o.log,
		onEnd:   o.onEnd,
		done:    make(chan struct{}),
		closed:  make(chan struct{}),
	}
	s.control = newControl(s, conn, o.silence)
	for _, c := range lanes {
		l := newLane(s, c, o.throttle)
		s.data = append(s.data, l)
		s.lanes = append(s.lanes, l)
	}
	go s.control.read()
	go s.control.beat(o.heartbeat)
	return s
}

func (s *session) Control() Lane         { return s.control }
func (s *session) Lanes() []Lane         { return s.lanes }
func (s *session) Token() Token          { return s.token }
func (s *session) Resumed() bool         { return s.resumed }
func (s *session) Peer() string          { return s.peer }
func (s *session) Sent() uint64          { return s.sent.Load() }
func (s *session) Received() uint64      { return s.received.Load() }
func (s *session) Done() <-chan struct{} { return s.done }

func (s *session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

func (s *session) over() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// end records why the session is over; the first reason counts.
func (s *session) end(cause error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return false
	}
	s.cause = cause
	close(s.done)
	return true
}

// fail ends the session at once. Closing its connections wakes whoever is blocked in a lane.
func (s *session) fail(cause error) {
	if !s.end(cause) {
		return
	}
	s.log.Debug("session ended", "token", s.token, "peer", s.peer, "cause", cause)
	abort(s.control.conn)
	for _, l := range s.data {
		abort(l.conn)
	}
	s.onEnd(s)
}

func (s *session) Close() error {
	s.closeOnce.Do(func() {
		orderly := s.end(ErrClosed)
		close(s.closed)
		if !orderly {
			<-s.control.ended
			return // fail has closed everything
		}
		deadline := time.Now().Add(closePatience)
		var wait sync.WaitGroup
		wait.Go(func() { s.control.finish(deadline) })
		for _, l := range s.data {
			wait.Go(func() { l.finish(deadline) })
		}
		wait.Wait()
		s.onEnd(s)
	})
	return nil
}

// abort closes a connection whose peer is not expected to answer any more.
func abort(conn net.Conn) {
	if a, ok := conn.(interface{ Abort() }); ok {
		a.Abort()
		return
	}
	_ = conn.Close() // lost already
}

// closeWrite ends this direction of a connection and leaves the other open.
func closeWrite(conn net.Conn) error {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil // the bye has to do
}
