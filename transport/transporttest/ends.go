package transporttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/livemigrate/migrate/transport"
)

func closeDeliversWhatWasSent(t *testing.T, dial Dial) {
	a, b := sessions(t, dial, 2)
	ctx := within(t)
	// Unread bytes on the closing side must not destroy what is under way to the other.
	if err := b.Lanes()[0].Send(ctx, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for _, lane := range append(a.Lanes(), a.Control()) {
		if err := lane.Send(ctx, content(1, 50_000)); err != nil {
			t.Fatal(err)
		}
	}
	wait.Go(func() { a.Close() })
	for _, lane := range append(b.Lanes(), b.Control()) {
		wait.Go(func() {
			frame, err := lane.Recv(ctx, nil)
			if err != nil || !bytes.Equal(frame, content(1, 50_000)) {
				t.Errorf("last frame: %d bytes, %v", len(frame), err)
			}
			for range 2 {
				if _, err := lane.Recv(ctx, nil); !errors.Is(err, io.EOF) {
					t.Errorf("after the last frame: %v, want EOF", err)
				}
			}
		})
	}
	wait.Wait()
	want(t, a.Err(), transport.ErrClosed)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	_, err := a.Control().Recv(ctx, nil)
	want(t, err, transport.ErrClosed)
	_, err = a.Lanes()[0].Recv(ctx, nil)
	want(t, err, transport.ErrClosed)
	want(t, a.Control().Send(ctx, nil), transport.ErrClosed)
	want(t, a.Lanes()[0].Send(ctx, nil), transport.ErrClosed)
}

// closedSessionLeavesNothing is not run beside other tests: it counts what the process has open.
func closedSessionLeavesNothing(t *testing.T, dial Dial) {
	p := newPair(t, dial, nil)
	before := open(t)
	for range 3 {
		a, b := p.session(t, &transport.ConnectOptions{Lanes: 3})
		stream(t, a.Lanes()[2], b.Lanes()[2], []int{100_000})
		go a.Close()
		b.Close()
		<-a.Done()
	}
	deadline := time.Now().Add(patience)
	for now := open(t); now[0] > before[0] || now[1] > before[1]; now = open(t) { // one of an earlier test may have ended
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("goroutines and descriptors: %v before, %v after\n%s", before, open(t), stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// open counts goroutines and descriptors.
func open(t *testing.T) [2]int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return [2]int{runtime.NumGoroutine(), len(fds)}
}

func closeWakesReceivers(t *testing.T, dial Dial) {
	a, b := sessions(t, dial, 1)
	errs := make(chan error, 2)
	for _, lane := range append(a.Lanes(), a.Control()) {
		go func() {
			_, err := lane.Recv(context.Background(), nil)
			errs <- err
		}()
	}
	time.Sleep(50 * time.Millisecond)
	go b.Close()
	a.Close()
	for range 2 {
		if err := result(t, errs); !errors.Is(err, io.EOF) { // b may have been first
			want(t, err, transport.ErrClosed)
		}
	}
}

func closeWakesSenders(t *testing.T, dial Dial) {
	a, _ := sessions(t, dial, 1)
	errs := make(chan error, 1)
	go func() {
		frame := make([]byte, 256<<10)
		for {
			if err := a.Lanes()[0].Send(context.Background(), frame); err != nil {
				errs <- err
				return
			}
		}
	}()
	time.Sleep(300 * time.Millisecond)
	a.Close()
	want(t, result(t, errs), transport.ErrClosed)
}

func sendAfterPeerClosed(t *testing.T, dial Dial) {
	a, b := sessions(t, dial, 1)
	go b.Close()
	_, err := a.Control().Recv(within(t), nil)
	if !errors.Is(err, io.EOF) {
		t.Fatalf("receive: %v, want EOF", err)
	}
	for range 200 { // until the peer has waited long enough and its end is shut
		if err = a.Lanes()[0].Send(within(t), make([]byte, 10_000)); err != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	want(t, err, transport.ErrPeerClosed)
}

func heartbeatsKeepIdleSession(t *testing.T, dial Dial) {
	const heartbeat, silence = 50 * time.Millisecond, 2 * time.Second // a busy machine is no silent peer
	p := newPair(t, dial, &transport.HubOptions{Heartbeat: heartbeat, Silence: silence})
	a, b := p.session(t, &transport.ConnectOptions{Lanes: 1, Heartbeat: heartbeat, Silence: silence})
	select {
	case <-a.Done():
		t.Fatal(a.Err())
	case <-b.Done():
		t.Fatal(b.Err())
	case <-time.After(silence + silence/2):
	}
	stream(t, a.Control(), b.Control(), []int{10})
	stream(t, b.Lanes()[0], a.Lanes()[0], []int{10})
}

func silentPeerEndsSession(t *testing.T, dial Dial) {
	p := newPair(t, dial, &transport.HubOptions{Silence: 300 * time.Millisecond})
	opening := transport.Preamble{Kind: transport.KindControl, Token: transport.NewToken(), Lanes: 1}
	p.opened(t, opening)
	opening.Kind = transport.KindLane
	p.opened(t, opening)
	s, err := p.hub.Accept(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	errs := make(chan error, 1)
	go func() {
		_, err := s.Lanes()[0].Recv(context.Background(), nil)
		errs <- err
	}()
	_, err = s.Control().Recv(within(t), nil)
	want(t, err, transport.ErrPeerSilent)
	want(t, result(t, errs), transport.ErrPeerSilent)
	want(t, s.Err(), transport.ErrPeerSilent)
	want(t, s.Lanes()[0].Send(within(t), []byte{1}), transport.ErrPeerSilent)
}

func cutConnectionIsNoCleanEnd(t *testing.T, dial Dial) {
	p := newPair(t, dial, nil)
	a, b := p.session(t, &transport.ConnectOptions{Lanes: 1})
	errs := make(chan error, 1)
	go func() {
		_, err := b.Lanes()[0].Recv(context.Background(), nil)
		errs <- err
	}()
	p.cut()
	_, err := b.Control().Recv(within(t), nil)
	want(t, err, transport.ErrLinkLost)
	want(t, result(t, errs), transport.ErrLinkLost)
	want(t, b.Err(), transport.ErrLinkLost)
	_, err = a.Control().Recv(within(t), nil)
	want(t, err, transport.ErrLinkLost)
}

func cutInsideFrame(t *testing.T, dial Dial) {
	p := newPair(t, dial, nil)
	control, lane, s := byHand(t, p)
	if _, err := lane.Write(append([]byte{0, 0, 1, 0}, make([]byte, 100)...)); err != nil { // 100 of 256
		t.Fatal(err)
	}
	p.cut()
	_, err := s.Lanes()[0].Recv(within(t), nil)
	want(t, err, transport.ErrLinkLost)
	_ = control
}

func announcedFrameTooLarge(t *testing.T, dial Dial) {
	for _, c := range []struct {
		name   string
		frame  []byte
		onLane bool
	}{
		{"Lane", []byte{0, 0x11, 0, 1}, true}, // MaxFrame + 1
		{"LaneMost", []byte{0, 0xff, 0xff, 0xff}, true},
		{"Control", []byte{0, 0x10, 0, 1}, false}, // MaxControl + 1
	} {
		t.Run(c.name, func(t *testing.T) {
			expectBroken(t, dial, c.frame, c.onLane, transport.ErrFrameTooLarge)
		})
	}
}

func notAFrame(t *testing.T, dial Dial) {
	for _, c := range []struct {
		name   string
		frame  []byte
		onLane bool
	}{
		{"UnknownKind", []byte{3, 0, 0, 0}, true},
		{"HeartbeatOnLane", []byte{1, 0, 0, 0}, true},
		{"GoodbyeWithPayload", []byte{2, 0, 0, 1}, true},
		{"HeartbeatWithPayload", []byte{1, 0, 0, 1}, false},
		{"Text", []byte("GET / HTTP/1.1\r\n"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			expectBroken(t, dial, c.frame, c.onLane, transport.ErrBadFrame)
		})
	}
}

// expectBroken sends bytes that are no good frame to a session, which must say so at once and not wait for more.
func expectBroken(t *testing.T, dial Dial, frame []byte, onLane bool, target error) {
	t.Helper()
	control, lane, s := byHand(t, newPair(t, dial, nil))
	conn, to := control, s.Control()
	if onLane {
		conn, to = lane, s.Lanes()[0]
	}
	if _, err := conn.Write(frame); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := to.Recv(within(t), nil)
		want(t, err, target)
	}
	if onLane && s.Err() != nil {
		t.Errorf("a bad lane has ended the session: %v", s.Err())
	}
}

func result(t *testing.T, errs <-chan error) error {
	t.Helper()
	select {
	case err := <-errs:
		return err
	case <-time.After(patience):
		t.Fatal("still blocked")
		return nil
	}
}
