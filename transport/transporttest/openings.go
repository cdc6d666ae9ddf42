package transporttest

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/transport"
)

// byHand is an accepted session with one data lane whose dialer is the test itself.
func byHand(t *testing.T, p *pair) (control, lane net.Conn, accepted transport.Session) {
	t.Helper()
	opening := transport.Preamble{Kind: transport.KindControl, Token: transport.NewToken(), Lanes: 1}
	control = p.opened(t, opening)
	opening.Kind = transport.KindLane
	lane = p.opened(t, opening)
	accepted, err := p.hub.Accept(within(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cut() // or the session would wait for a goodbye
		accepted.Close()
	})
	return control, lane, accepted
}

// otherVersion is a preamble, or an answer, of version 7; only its first six bytes can be known.
var otherVersion = append([]byte("MIGR\x00\x07"), make([]byte, 60)...)

func callerOfOtherVersion(t *testing.T, dial Dial) {
	p := newPair(t, dial, nil)
	conn := p.raw(t)
	if _, err := conn.Write(otherVersion); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 10)
	if _, err := io.ReadFull(conn, answer); err != nil {
		t.Fatal(err)
	}
	if string(answer[:7]) != "MIGR\x00\x01\xff" {
		t.Errorf("answer %q does not name version and reason", answer)
	}
	stillWorks(t, p)
}

func listenerOfOtherVersion(t *testing.T, dial Dial) {
	err := connectTo(t, dial, func(conn net.Conn) { _, _ = conn.Write(otherVersion) })
	version, ok := errors.AsType[*transport.VersionError](err)
	if !ok || version.Theirs != 7 || version.Ours != transport.Version {
		t.Errorf("error is %v, want both versions", err)
	}
}

func callerWhoIsNoMigrate(t *testing.T, dial Dial) {
	p := newPair(t, dial, nil)
	for _, garbage := range []string{"GET / HTTP/1.1\r\n\r\n", "MIGx", "MIGR\x00\x01\x09\x00" + strings.Repeat("x", 40)} {
		conn := p.raw(t)
		if _, err := conn.Write([]byte(garbage)); err != nil {
			t.Fatal(err)
		}
		want(t, transport.ReadAnswer(within(t), conn), transport.ErrNotMigrate)
	}
	p.raw(t).Close() // says nothing at all
	stillWorks(t, p)
}

func listenerWhoIsNoMigrate(t *testing.T, dial Dial) {
	err := connectTo(t, dial, func(conn net.Conn) { _, _ = conn.Write([]byte("Welcome to host b!\nToday is")) })
	want(t, err, transport.ErrNotMigrate)
	if !strings.Contains(err.Error(), "Welcome to host b!") {
		t.Errorf("%v does not show what the peer sent", err)
	}
}

func listenerWhoHangsUp(t *testing.T, dial Dial) {
	err := connectTo(t, dial, func(net.Conn) {})
	want(t, err, transport.ErrLinkLost)
}

// connectTo connects to a peer that reads the preamble and then does what is asked.
func connectTo(t *testing.T, dial Dial, answer func(net.Conn)) error {
	t.Helper()
	d, a := dial(t)
	defer a.Close()
	go func() {
		conn, _, err := a.AcceptConn(within(t))
		if err != nil {
			return
		}
		_, _ = transport.ReadPreamble(within(t), conn)
		answer(conn)
		conn.Close()
	}()
	s, err := transport.Connect(within(t), d, nil)
	if err == nil {
		s.Close()
	}
	return err
}

// stillWorks makes a session, to see that a bad caller has harmed nobody else.
func stillWorks(t *testing.T, p *pair) {
	t.Helper()
	a, b := p.session(t, &transport.ConnectOptions{Lanes: 1})
	stream(t, a.Lanes()[0], b.Lanes()[0], []int{10})
}

func resumeReachesOwner(t *testing.T, dial Dial) {
	p := newPair(t, dial, nil)
	a, b := p.session(t, &transport.ConnectOptions{Lanes: 2})
	if a.Token() != b.Token() || a.Resumed() || b.Resumed() {
		t.Fatalf("new session: tokens %s and %s, resumed %v and %v", a.Token(), b.Token(), a.Resumed(), b.Resumed())
	}
	p.cut()
	<-a.Done()
	<-b.Done()
	a2, b2 := p.session(t, &transport.ConnectOptions{Lanes: 1, Token: a.Token(), Resume: true})
	if b2.Token() != a.Token() || !a2.Resumed() || !b2.Resumed() {
		t.Errorf("resumed session: token %s, want %s", b2.Token(), a.Token())
	}
	stream(t, a2.Lanes()[0], b2.Lanes()[0], []int{10})
	stream(t, b2.Control(), a2.Control(), []int{10})
}

func resumeSupersedesDeadHalf(t *testing.T, dial Dial) {
	p := newPair(t, dial, nil)
	a, b := p.session(t, &transport.ConnectOptions{Lanes: 1})
	a2, b2 := p.session(t, &transport.ConnectOptions{Lanes: 1, Token: a.Token(), Resume: true})
	_, err := b.Control().Recv(within(t), nil)
	want(t, err, transport.ErrSuperseded)
	_, err = a.Control().Recv(within(t), nil)
	want(t, err, transport.ErrLinkLost)
	stream(t, a2.Lanes()[0], b2.Lanes()[0], []int{10})
}

func unknownTokenIsRefused(t *testing.T, dial Dial) {
	p := newPair(t, dial, nil)
	_, err := transport.Connect(within(t), p.tap, &transport.ConnectOptions{Token: transport.NewToken(), Resume: true})
	want(t, err, transport.ErrUnknownToken)
	conn := p.raw(t)
	lane := transport.Preamble{Kind: transport.KindLane, Token: transport.NewToken(), Lanes: 1}
	if err := transport.WritePreamble(within(t), conn, lane); err != nil {
		t.Fatal(err)
	}
	want(t, transport.ReadAnswer(within(t), conn), transport.ErrUnknownToken)
}

func usedTokenIsRefused(t *testing.T, dial Dial) {
	p := newPair(t, dial, nil)
	a, b := p.session(t, nil)
	_, err := transport.Connect(within(t), p.tap, &transport.ConnectOptions{Token: a.Token()})
	want(t, err, transport.ErrTokenInUse)
	stream(t, a.Control(), b.Control(), []int{10})
}

func refusalSaysWhy(t *testing.T, dial Dial) {
	p := newPair(t, dial, &transport.HubOptions{Admit: func(context.Context, transport.Preamble, string) error {
		return errors.New("host b is being shut down")
	}})
	_, err := transport.Connect(within(t), p.tap, nil)
	want(t, err, transport.ErrRefused)
	if !strings.Contains(err.Error(), "host b is being shut down") {
		t.Errorf("%v does not say why", err)
	}
}

func limitOfSessions(t *testing.T, dial Dial) {
	p := newPair(t, dial, &transport.HubOptions{MaxSessions: 1})
	a, b := p.session(t, nil)
	_, err := transport.Connect(within(t), p.tap, nil)
	want(t, err, transport.ErrBusy)
	go b.Close()
	a.Close()
	<-b.Done()
	time.Sleep(50 * time.Millisecond)
	p.session(t, nil)
}

// preambleIsPassedOn is how `serve` and `receive` work: they read the preamble, choose the process that owns the session
// and copy bytes.
func preambleIsPassedOn(t *testing.T, dial Dial) {
	front, calls := dial(t)
	defer calls.Close()
	back, owner := transport.Memory()
	hub := transport.NewHub(owner, nil)
	defer hub.Close()
	ctx := within(t)
	go func() {
		for {
			conn, _, err := calls.AcceptConn(ctx)
			if err != nil {
				return
			}
			go route(ctx, conn, back)
		}
	}()
	a, err := transport.Connect(ctx, front, &transport.ConnectOptions{Lanes: 2})
	if err != nil {
		t.Fatal(err)
	}
	b, err := hub.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stream(t, a.Lanes()[1], b.Lanes()[1], []int{transport.MaxFrame, 10})
	stream(t, b.Lanes()[0], a.Lanes()[0], []int{transport.MaxFrame, 10})
	stream(t, a.Control(), b.Control(), []int{10})
	go a.Close()
	if _, err := b.Control().Recv(ctx, nil); !errors.Is(err, io.EOF) {
		t.Errorf("after close: %v, want EOF", err)
	}
	b.Close()
}

func route(ctx context.Context, conn net.Conn, back transport.Dialer) {
	p, err := transport.ReadPreamble(ctx, conn)
	if err != nil {
		_ = transport.WriteAnswer(ctx, conn, err)
		conn.Close()
		return
	}
	owner, err := back.DialConn(ctx)
	if err != nil {
		conn.Close()
		return
	}
	if err := transport.WritePreamble(ctx, owner, p); err != nil {
		conn.Close()
		owner.Close()
		return
	}
	_ = transport.Proxy(ctx, conn, owner)
}
