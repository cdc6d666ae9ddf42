package transport_test

import (
	"crypto/tls"
	"crypto/x509"
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

// Whose certificate is refused, why, and what cures it is told at both ends.
func TestTLSWrongCertificateSaysWhoseAndWhy(t *testing.T) {
	ours, theirs := t.TempDir(), t.TempDir()
	authority(t, ours)
	authority(t, theirs)
	local := []string{"127.0.0.1"}
	named := func(dir, name string) transport.Certificates {
		return issue(t, dir, pki.Request{Name: name, Hosts: local})
	}
	changed := func(name string, change func(*x509.Certificate)) transport.Certificates {
		return reissue(t, ours, named(ours, name), change)
	}
	good := named(ours, "good")
	stranger := named(theirs, "stranger")
	expired := expire(t, ours, named(ours, "expired"))
	early := changed("early", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })
	client := changed("client", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	server := changed("server", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	elsewhere := issue(t, ours, pki.Request{Name: "elsewhere", Hosts: []string{"10.9.8.7"}})
	itself := transport.Certificates{Cert: filepath.Join(ours, "ca.crt"), Key: filepath.Join(ours, "ca.key"), CA: good.CA}
	for _, c := range []struct {
		name           string
		dialer, server transport.Certificates
		allow          []string
		want           string // of the dialer's error
		serverLog      string
	}{
		{"WrongAuthorityOfServer", good, stranger, nil, `"stranger" is signed by`, "the caller does not take ours"},
		{"WrongAuthorityOfCaller", withCA(stranger, good.CA), good, nil, `does not take ours (unknown certificate authority), that of "stranger", signed by`, `that of "stranger" is signed by`},
		{"WrongName", good, elsewhere, nil, `"elsewhere" is for elsewhere, 10.9.8.7, not for 127.0.0.1: issue it again with --host 127.0.0.1`, "the caller does not take ours"},
		{"ExpiredServer", good, expired, nil, `"expired" expired at `, "the caller does not take ours"},
		{"ExpiredCaller", expired, good, nil, `does not take ours (expired certificate), that of "expired", which expired at`, `"expired" expired at `},
		{"EarlyServer", good, early, nil, `"early" is valid only from `, "the caller does not take ours"},
		{"EarlyCaller", early, good, nil, `"early", which is valid only from`, `"early" is valid only from `},
		{"ClientsAsServer", good, client, nil, `"client" may not be used on this side of a connection`, "the caller does not take ours"},
		{"ServersAsClient", server, good, nil, `that of "server", signed by`, `"server" may not be used on this side`},
		{"AuthorityAsServer", good, itself, nil, `that of "migrate authority`, "the caller does not take ours"},
		{
			"NotAllowed", good, good,
			[]string{"host-a", "goo", "Good", "good.", "*", ""},
			`that of "good" is not among those allowed here: if it should be, start serve with --allow good too`,
			`that of "good" is not among those allowed here`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := &lockedBuffer{}
			d, a := meet(t, transport.Address{Scheme: transport.TLS, Host: "127.0.0.1", Port: freePort(t)},
				&transport.DialOptions{Certificates: c.dialer},
				&transport.ListenOptions{Certificates: c.server, Allow: c.allow, Log: slog.New(slog.NewTextHandler(log, nil))})
			_, err := transport.Connect(t.Context(), d, &transport.ConnectOptions{Timeout: 5 * time.Second})
			if !errors.Is(err, transport.ErrCertificate) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("dialer is told %v, want %q in one line", err, c.want)
			}
			for wait := time.Now().Add(5 * time.Second); log.String() == "" && time.Now().Before(wait); {
				time.Sleep(time.Millisecond)
			}
			a.Close()
			text := strings.ReplaceAll(log.String(), `\"`, `"`)
			if !strings.Contains(text, c.serverLog) || strings.Count(text, "\n") != 1 {
				t.Errorf("server logs %q, want %q in one line", text, c.serverLog)
			}
		})
	}
}

// Any name that `pki issue` has put into a certificate lets its owner in.
func TestTLSAllowedNames(t *testing.T) {
	dir := t.TempDir()
	authority(t, dir)
	server := issue(t, dir, pki.Request{Name: "host-b", Hosts: []string{"127.0.0.1"}})
	caller := issue(t, dir, pki.Request{Name: "host-a", Hosts: []string{"a.example.org", "10.0.0.1"}})
	for _, name := range []string{"host-a", "a.example.org", "10.0.0.1"} {
		d, a := meet(t, transport.Address{Scheme: transport.TLS, Host: "127.0.0.1", Port: freePort(t)},
			&transport.DialOptions{Certificates: caller}, &transport.ListenOptions{Certificates: server, Allow: []string{"host-c", name}})
		conn, err := d.DialConn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, peer, err := a.AcceptConn(t.Context()); err != nil || peer != "host-a" {
			t.Errorf("with --allow %s the caller is %q, %v", name, peer, err)
		}
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
