// Package transporttest is the suite that every scheme of package transport passes: what a session promises, and what it
// does when the link or the peer breaks its own promises.
package transporttest

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/livemigrate/migrate/transport"
)

// patience is how long anything in the suite may take before it counts as hanging.
const patience = 20 * time.Second

// Dial returns the two places where connections meet. Both live until the test ends; the suite closes the acceptor.
type Dial func(t *testing.T) (transport.Dialer, transport.Acceptor)

// Run runs the whole suite.
func Run(t *testing.T, dial Dial) {
	t.Run("ClosedSessionLeavesNothing", func(t *testing.T) { closedSessionLeavesNothing(t, dial) })
	for _, c := range []struct {
		name string
		test func(*testing.T, Dial)
	}{
		{"FramesArriveWholeAndInOrder", framesArriveWholeAndInOrder},
		{"BothDirectionsAtOnce", bothDirectionsAtOnce},
		{"ManyLanes", manyLanes},
		{"LargestFrames", largestFrames},
		{"TooLargeFrameIsNotSent", tooLargeFrameIsNotSent},
		{"BytesAreCounted", bytesAreCounted},
		{"ThrottleHoldsRate", throttleHoldsRate},
		{"SlowReaderHoldsSender", slowReaderHoldsSender},
		{"UnreadControlHoldsSender", unreadControlHoldsSender},
		{"CancelWhileReceivingDoesNoHarm", cancelWhileReceivingDoesNoHarm},
		{"CancelWhileSendingLeavesControl", cancelWhileSendingLeavesControl},
		{"CloseDeliversWhatWasSent", closeDeliversWhatWasSent},
		{"CloseWakesReceivers", closeWakesReceivers},
		{"CloseWakesSenders", closeWakesSenders},
		{"SendAfterPeerClosed", sendAfterPeerClosed},
		{"HeartbeatsKeepIdleSession", heartbeatsKeepIdleSession},
		{"SilentPeerEndsSession", silentPeerEndsSession},
		{"CutConnectionIsNoCleanEnd", cutConnectionIsNoCleanEnd},
		{"CutInsideFrame", cutInsideFrame},
		{"AnnouncedFrameTooLarge", announcedFrameTooLarge},
		{"NotAFrame", notAFrame},
		{"CallerOfOtherVersion", callerOfOtherVersion},
		{"ListenerOfOtherVersion", listenerOfOtherVersion},
		{"CallerWhoIsNoMigrate", callerWhoIsNoMigrate},
		{"ListenerWhoIsNoMigrate", listenerWhoIsNoMigrate},
		{"ListenerWhoHangsUp", listenerWhoHangsUp},
		{"ResumeReachesOwner", resumeReachesOwner},
		{"ResumeSupersedesDeadHalf", resumeSupersedesDeadHalf},
		{"UnknownTokenIsRefused", unknownTokenIsRefused},
		{"UsedTokenIsRefused", usedTokenIsRefused},
		{"RefusalSaysWhy", refusalSaysWhy},
		{"LimitOfSessions", limitOfSessions},
		{"PreambleIsPassedOn", preambleIsPassedOn},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // most of them wait
			c.test(t, dial)
		})
	}
}

// pair is a dialer that remembers its connections, and the hub that they lead to.
type pair struct {
	*tap
	hub *transport.Hub
}

func newPair(t *testing.T, dial Dial, o *transport.HubOptions) *pair {
	t.Helper()
	d, a := dial(t)
	p := &pair{tap: &tap{Dialer: d}, hub: transport.NewHub(a, o)}
	t.Cleanup(func() { p.hub.Close() })
	return p
}

// session connects and accepts.
func (p *pair) session(t *testing.T, o *transport.ConnectOptions) (dialed, accepted transport.Session) {
	t.Helper()
	ctx := within(t)
	dialed, err := transport.Connect(ctx, p.tap, o)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err = p.hub.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // each waits a while for the other
		var wait sync.WaitGroup
		wait.Go(func() { dialed.Close() })
		wait.Go(func() { accepted.Close() })
		wait.Wait()
	})
	return dialed, accepted
}

// sessions is the two ends of a session with so many data lanes.
func sessions(t *testing.T, dial Dial, lanes int) (dialed, accepted transport.Session) {
	t.Helper()
	return newPair(t, dial, nil).session(t, &transport.ConnectOptions{Lanes: lanes})
}

// tap is a dialer whose connections a test can cut.
type tap struct {
	transport.Dialer
	mu    sync.Mutex
	conns []net.Conn
}

func (d *tap) DialConn(ctx context.Context) (net.Conn, error) {
	conn, err := d.Dialer.DialConn(ctx)
	if err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.conns = append(d.conns, conn)
	}
	return conn, err
}

// cut ends every connection without a goodbye, as a lost link or a killed process does.
func (d *tap) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, conn := range d.conns {
		if a, ok := conn.(interface{ Abort() }); ok {
			a.Abort()
		} else {
			conn.Close()
		}
	}
	d.conns = nil
}

// opened is a connection of a session without the session: the test writes its frames by hand.
func (d *tap) opened(t *testing.T, p transport.Preamble) net.Conn {
	t.Helper()
	conn := d.raw(t)
	if err := transport.WritePreamble(within(t), conn, p); err != nil {
		t.Fatal(err)
	}
	if err := transport.ReadAnswer(within(t), conn); err != nil {
		t.Fatal(err)
	}
	return conn
}

func (d *tap) raw(t *testing.T) net.Conn {
	t.Helper()
	conn, err := d.DialConn(within(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// within ends with the test, and long before the test binary's own time is up.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
