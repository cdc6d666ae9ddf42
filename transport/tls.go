package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"
)

// Certificates are the PEM files of a tls:// side; `migrate pki` makes them. Certificate and key serve as client's and
// as server's alike.
type Certificates struct {
	Cert string // this side's certificate
	Key  string // and its private key
	CA   string // the authority that signs both sides' certificates
}

func (c *Certificates) load() (*tls.Config, error) {
	if c.Cert == "" || c.Key == "" || c.CA == "" {
		return nil, errors.New("tls:// needs a certificate, its key and the authority's certificate: name this host's with --tls-cert, --tls-key and --tls-ca " +
			"or MIGRATE_TLS_CERT, MIGRATE_TLS_KEY and MIGRATE_TLS_CA; a host that has none gets them by `migrate pki init` and `migrate pki issue`")
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s with key %s: %w", c.Cert, c.Key, err)
	}
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fmt.Errorf("load authority: %w", err)
	}
	authority := x509.NewCertPool()
	if !authority.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load authority: no certificate in %s", c.CA)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		RootCAs:      authority,
		ClientCAs:    authority,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		MinVersion:   tls.VersionTLS13,
		// The cipher is Go's choice: AES-128-GCM where both processors have AES instructions. A resumed TLS session would
		// skip the look at the certificate, and records that begin small suit web pages, not memory.
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}, nil
}

type tlsDialer struct {
	addr    Address
	config  *tls.Config
	timeout time.Duration
}

func newTLSDialer(addr Address, o *DialOptions) (*tlsDialer, error) {
	if addr.Host == "" {
		return nil, fmt.Errorf("dial %s: want a host", addr)
	}
	config, err := o.Certificates.load()
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	// Go would send none when the other side names other authorities, and that side could not say whose it refuses.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &config.Certificates[0], nil }
	config.ServerName = o.ServerName
	if config.ServerName == "" {
		config.ServerName = addr.Host
	}
	return &tlsDialer{addr: addr, config: config, timeout: o.Timeout}, nil
}

func (d *tlsDialer) String() string { return d.addr.String() }

func (d *tlsDialer) DialConn(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(d.addr.Host, d.addr.Port))
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	conn, err := dialTLS(ctx, raw, d.config)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dial: %w", explainTLS(err, d.config)), raw.Close())
	}
	return conn, nil
}

func listenTLS(addr Address, o *ListenOptions) (Acceptor, error) {
	certificates := o.Certificates
	if _, err := certificates.load(); err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(addr.Host, addr.Port))
	if err != nil {
		return nil, err
	}
	greet := func(ctx context.Context, raw net.Conn, release func()) (net.Conn, string, error) {
		config, err := certificates.load()
		if err != nil {
			return nil, "", err
		}
		conn, err := admitTLS(ctx, raw, config, o.Allow, release)
		if err != nil {
			return nil, "", err
		}
		return conn, conn.peer, nil
	}
	var divert func(context.Context, net.Conn) bool
	if o.Divert != nil {
		divert = func(ctx context.Context, conn net.Conn) bool {
			session := peekLane(ctx, conn)
			return session != "" && o.Divert(session, conn)
		}
	}
	return newAcceptor(l, "tls://"+l.Addr().String(), greet, divert, o), nil
}

// admitTLS makes the server's side of a handshake, and refuses a caller that is not among those allowed in words.
func admitTLS(ctx context.Context, raw net.Conn, config *tls.Config, allow []string, release func()) (*tlsConn, error) {
	conn, err := acceptTLS(ctx, raw, config, release)
	if err != nil {
		return nil, explainTLS(err, config)
	}
	if c := conn.ConnectionState().PeerCertificates[0]; !allows(allow, c) {
		err = fmt.Errorf("%w: that of %q is not among those allowed here: if it should be, start serve with --allow %[2]s too",
			ErrCertificate, certName(c))
		return nil, errors.Join(err, WriteAnswer(ctx, conn, err)) // TLS itself has no words for it
	}
	return conn, nil
}

// allows tells whether a certificate has one of the names. An empty list has every name.
func allows(names []string, c *x509.Certificate) bool {
	if len(names) == 0 {
		return true
	}
	has := append([]string{c.Subject.CommonName}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		has = append(has, ip.String())
	}
	return slices.ContainsFunc(names, func(name string) bool { return name != "" && slices.Contains(has, name) })
}

// certName is the name by which a certificate's owner is known: `migrate pki issue NAME` puts it in the subject.
func certName(c *x509.Certificate) string {
	switch {
	case c.Subject.CommonName != "":
		return c.Subject.CommonName
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	case len(c.IPAddresses) > 0:
		return c.IPAddresses[0].String()
	default:
		return c.Subject.String()
	}
}
