package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/pki"
	"github.com/livemigrate/migrate/transport"
)

// feeder is an acceptor that also yields connections which were diverted.
type feeder struct {
	transport.Acceptor
	diverted chan net.Conn
}

func (f *feeder) AcceptConn(ctx context.Context) (net.Conn, string, error) {
	type call struct {
		conn net.Conn
		peer string
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	plain := make(chan call, 1)
	go func() {
		conn, peer, err := f.Acceptor.AcceptConn(ctx)
		plain <- call{conn, peer, err}
	}()
	select {
	case c := <-plain:
		return c.conn, c.peer, c.err
	case conn := <-f.diverted:
		cancel()
		if c := <-plain; c.err == nil {
			go func() { f.diverted <- c.conn }()
		}
		return conn, conn.(interface{ PeerName() string }).PeerName(), nil
	}
}

// A lane names its session before the handshake, so that it can be handed to whoever owns that; the control connection
// does not.
func TestLanesCanBeDivertedBeforeTheirHandshake(t *testing.T) {
	dir := t.TempDir()
	authority(t, dir)
	here := issue(t, dir, pki.Request{Name: "here", Hosts: []string{"127.0.0.1"}})
	f := &feeder{diverted: make(chan net.Conn, 8)}
	token := transport.NewToken()
	var diverted atomic.Int32
	address := transport.Address{Scheme: transport.TLS, Host: "127.0.0.1", Port: freePort(t)}
	var err error
	f.Acceptor, err = transport.Listen(address, &transport.ListenOptions{
		Certificates: here,
		Divert: func(session string, conn net.Conn) bool {
			if session != token.PublicName() {
				t.Errorf("session %q, want %q", session, token.PublicName())
			}
			diverted.Add(1)
			go func() {
				lane, peer, err := transport.AcceptTLS(context.Background(), conn, here, nil)
				if err != nil || peer != "here" {
					t.Errorf("handshake of a diverted lane: peer %q, %v", peer, err)
					return
				}
				f.diverted <- lane
			}()
			return true
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	hub := transport.NewHub(f, nil)
	defer hub.Close()
	dialer, err := transport.NewDialer(address, &transport.DialOptions{Certificates: here})
	if err != nil {
		t.Fatal(err)
	}
	ours, err := transport.Connect(t.Context(), dialer, &transport.ConnectOptions{Token: token, Lanes: 3})
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := hub.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, lane := range ours.Lanes() {
		if err := lane.Send(t.Context(), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if got, err := theirs.Lanes()[i].Recv(t.Context(), nil); err != nil || len(got) != 1 || got[0] != byte(i) {
			t.Errorf("lane %d: %v, %v", i, got, err)
		}
	}
	if n := diverted.Load(); n != 3 {
		t.Errorf("%d connections were diverted, want the 3 lanes", n)
	}
	go func() { _ = ours.Close() }()
	if err := theirs.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// A caller whose first message is longer on its way than a look waits for it, is one whose packets were lost, and comes in.
func TestLateCallerIsNotRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority(t, dir)
	here := issue(t, dir, pki.Request{Name: "here", Hosts: []string{"127.0.0.1"}})
	address := transport.Address{Scheme: transport.TLS, Host: "127.0.0.1", Port: freePort(t)}
	acceptor, err := transport.Listen(address, &transport.ListenOptions{
		Certificates: here, Divert: func(string, net.Conn) bool { return false },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer acceptor.Close()
	pair, err := tls.LoadX509KeyPair(here.Cert, here.Key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := net.Dial("tcp", "127.0.0.1:"+address.Port)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	time.Sleep(2500 * time.Millisecond)
	// Whom it has called is not what this is about.
	caller := tls.Client(raw, &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}) //nolint:gosec // as said
	if err := caller.HandshakeContext(t.Context()); err != nil {
		t.Fatalf("the handshake of a late caller: %v", err)
	}
	conn, peer, err := acceptor.AcceptConn(t.Context())
	if err != nil || peer != "here" {
		t.Fatalf("a late caller: %q, %v", peer, err)
	}
	conn.Close()
}
