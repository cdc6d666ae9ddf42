package transport_test

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/pki"
	"github.com/livemigrate/migrate/transport"
	"github.com/livemigrate/migrate/transport/transporttest"
)

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	authority(t, dir)
	a, b := issue(t, dir, pki.Request{Name: "host-a"}), issue(t, dir, pki.Request{Name: "host-b", Hosts: []string{"127.0.0.1"}})
	transporttest.Run(t, func(t *testing.T) (transport.Dialer, transport.Acceptor) { return dialTLS(t, a, b) })
}

func authority(t testing.TB, dir string) {
	t.Helper()
	if _, err := pki.Init(pki.Authority{Dir: dir}); err != nil {
		t.Fatal(err)
	}
}

func issue(t testing.TB, dir string, r pki.Request) transport.Certificates {
	t.Helper()
	r.Dir = dir
	f, err := pki.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	return transport.Certificates{Cert: f.Cert, Key: f.Key, CA: f.CA}
}

// dialTLS is a dialer with a's certificate and a listener with b's.
func dialTLS(t testing.TB, a, b transport.Certificates) (transport.Dialer, transport.Acceptor) {
	t.Helper()
	return meet(t, transport.Address{Scheme: transport.TLS, Host: "127.0.0.1", Port: freePort(t)},
		&transport.DialOptions{Certificates: a}, &transport.ListenOptions{Certificates: b})
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func TestTLSNamesBothSides(t *testing.T) {
	dir := t.TempDir()
	authority(t, dir)
	d, a := dialTLS(t, issue(t, dir, pki.Request{Name: "host-a"}), issue(t, dir, pki.Request{Name: "host-b", Hosts: []string{"127.0.0.1"}}))
	hub := transport.NewHub(a, nil)
	defer hub.Close()
	dialed, err := transport.Connect(t.Context(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := hub.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if dialed.Peer() != "host-b" || accepted.Peer() != "host-a" {
		t.Errorf("peers are %q and %q, want host-b and host-a", dialed.Peer(), accepted.Peer())
	}
	go dialed.Close()
	accepted.Close()
}

func TestTLSWrongCertificateSaysWhoseAndWhy(t *testing.T) {
	ours, theirs := t.TempDir(), t.TempDir()
	authority(t, ours)
	authority(t, theirs)
	local := []string{"127.0.0.1"}
	good := issue(t, ours, pki.Request{Name: "good", Hosts: local})
	stranger := issue(t, theirs, pki.Request{Name: "stranger", Hosts: local})
	expired := expire(t, ours, issue(t, ours, pki.Request{Name: "expired", Hosts: local, Life: time.Minute}))
	elsewhere := issue(t, ours, pki.Request{Name: "elsewhere", Hosts: []string{"10.9.8.7"}})
	for _, c := range []struct {
		name           string
		dialer, server transport.Certificates
		want           string
		serverLog      string
	}{
		{"WrongAuthorityOfServer", good, stranger, `"stranger" is signed by`, ""},
		{"WrongAuthorityOfCaller", withCA(stranger, good.CA), good, "the peer does not take ours", `\"stranger\" is signed by`},
		{"WrongName", good, elsewhere, `"elsewhere" is for elsewhere, 10.9.8.7, not for 127.0.0.1: issue it again with --host 127.0.0.1`, ""},
		{"ExpiredServer", good, expired, `"expired" expired at `, ""},
		{"ExpiredCaller", expired, good, "the peer does not take ours (expired certificate)", `\"expired\" expired at `},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := &lockedBuffer{}
			d, a := meet(t, transport.Address{Scheme: transport.TLS, Host: "127.0.0.1", Port: freePort(t)},
				&transport.DialOptions{Certificates: c.dialer},
				&transport.ListenOptions{Certificates: c.server, Log: slog.New(slog.NewTextHandler(log, nil))})
			_, err := transport.Connect(t.Context(), d, &transport.ConnectOptions{Timeout: 5 * time.Second})
			if !errors.Is(err, transport.ErrCertificate) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("dialer is told %v, want %q", err, c.want)
			}
			a.Close()
			if c.serverLog != "" && !strings.Contains(log.String(), c.serverLog) {
				t.Errorf("server logs %q, want %q", log.String(), c.serverLog)
			}
		})
	}
}

func withCA(c transport.Certificates, ca string) transport.Certificates {
	c.CA = ca
	return c
}

func TestTLSCallerWithoutCertificateIsDropped(t *testing.T) {
	dir := t.TempDir()
	authority(t, dir)
	c := issue(t, dir, pki.Request{Name: "b", Hosts: []string{"127.0.0.1"}})
	_, a := dialTLS(t, c, c)
	conn, err := tls.Dial("tcp", strings.TrimPrefix(a.Addr(), "tls://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("read: %v, want a demand for a certificate", err)
	}
	old, err := tls.Dial("tcp", strings.TrimPrefix(a.Addr(), "tls://"), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil {
		old.Close()
		t.Error("TLS 1.2 is accepted")
	}
}

func TestTLSPeerThatIsNoTLS(t *testing.T) {
	dir := t.TempDir()
	authority(t, dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			conn.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n"))
			conn.Close()
		}
	}()
	addr, err := transport.ParseAddress("tls://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := transport.NewDialer(addr, &transport.DialOptions{Certificates: issue(t, dir, pki.Request{Name: "a"})})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.DialConn(t.Context()); !errors.Is(err, transport.ErrNotMigrate) {
		t.Errorf("dial: %v, want %v", err, transport.ErrNotMigrate)
	}
}

func TestTLSSilentCallersDelayNobody(t *testing.T) {
	dir := t.TempDir()
	authority(t, dir)
	c := issue(t, dir, pki.Request{Name: "b", Hosts: []string{"127.0.0.1"}})
	d, a := dialTLS(t, c, c)
	for range 20 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(a.Addr(), "tls://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write([]byte{22})
	}
	hub := transport.NewHub(a, nil)
	defer hub.Close()
	start := time.Now()
	s, err := transport.Connect(t.Context(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := hub.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("a connection took %v while others were silent", took)
	}
	go s.Close()
	accepted.Close()
}

func TestTLSRenewedCertificateNeedsNoRestart(t *testing.T) {
	dir := t.TempDir()
	authority(t, dir)
	c := issue(t, dir, pki.Request{Name: "b", Hosts: []string{"10.9.8.7"}})
	d, a := dialTLS(t, issue(t, dir, pki.Request{Name: "a"}), c)
	if _, err := d.DialConn(t.Context()); !errors.Is(err, transport.ErrCertificate) {
		t.Fatalf("dial: %v, want %v", err, transport.ErrCertificate)
	}
	issue(t, dir, pki.Request{Name: "b", Hosts: []string{"127.0.0.1"}, Force: true})
	conn, err := d.DialConn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	a.Close()
}

func TestTLSWithoutCertificatesSaysHowToMakeThem(t *testing.T) {
	addr := transport.Address{Scheme: transport.TLS, Host: "127.0.0.1", Port: "1"}
	for _, c := range []transport.Certificates{{}, {Cert: "c", Key: "k"}} {
		if _, err := transport.NewDialer(addr, &transport.DialOptions{Certificates: c}); err == nil || !strings.Contains(err.Error(), "migrate pki") {
			t.Errorf("dialer: %v", err)
		}
		if _, err := transport.Listen(addr, &transport.ListenOptions{Certificates: c}); err == nil || !strings.Contains(err.Error(), "migrate pki") {
			t.Errorf("listener: %v", err)
		}
	}
	missing := filepath.Join(t.TempDir(), "missing.crt")
	_, err := transport.NewDialer(addr, &transport.DialOptions{Certificates: transport.Certificates{Cert: missing, Key: missing, CA: missing}})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}
