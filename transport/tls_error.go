package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// explainTLS turns a failed handshake into what to do about it. config is this side's.
func explainTLS(err error, config *tls.Config) error {
	if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(v.UnverifiedCertificates) > 0 {
		return fmt.Errorf("%w: %s", ErrCertificate, explainCertificate(v.Err, v.UnverifiedCertificates[0], config))
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fmt.Errorf("%w: it does not speak TLS", ErrNotMigrate)
	}
	if strings.Contains(err.Error(), "client didn't provide a certificate") {
		return fmt.Errorf("%w: the caller has none: it needs one that `migrate pki issue` makes in the directory of this host's", ErrCertificate)
	}
	if config.ServerName == "" { // this is the server: who calls it is told why
		return explainAlert(err, nil)
	}
	return explainAlert(err, config.Certificates[0].Leaf)
}

func explainCertificate(err error, c *x509.Certificate, config *tls.Config) string {
	name := certName(c)
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Sprintf("that of %q is signed by %q, which is not the authority here: issue both sides' with the same `migrate pki` directory",
			name, c.Issuer.CommonName)
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Sprintf("that of %q is for %s, not for %s: issue it again with --host %[3]s", name, names(c), config.ServerName)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		if time.Now().Before(c.NotBefore) {
			return fmt.Sprintf("that of %q is valid only from %s: compare the hosts' clocks", name, c.NotBefore.Format(time.RFC3339))
		}
		return fmt.Sprintf("that of %q expired at %s: issue it again", name, c.NotAfter.Format(time.RFC3339))
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.IncompatibleUsage {
		return fmt.Sprintf("that of %q may not be used on this side of a connection: issue it with `migrate pki issue`, for both sides", name)
	}
	return fmt.Sprintf("that of %q: %v", name, err)
}

func names(c *x509.Certificate) string {
	all := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no host"
	}
	return strings.Join(all, ", ")
}

// explainAlert names the side that is at fault when the peer ends the connection by a TLS alert. own is this side's
// certificate, nil where that can't be the reason.
func explainAlert(err error, own *x509.Certificate) error {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return err
	}
	alert := strings.TrimPrefix(op.Err.Error(), "tls: ")
	isCertificate := strings.Contains(alert, "certificate") || strings.Contains(alert, "unknown authority")
	switch {
	case isCertificate && own != nil:
		return fmt.Errorf("%w: the peer does not take ours (%s), %s; its log says more", ErrCertificate, alert, explainOwn(alert, own))
	case isCertificate:
		return fmt.Errorf("%w: the caller does not take ours (%s); it is told more", ErrCertificate, alert)
	default:
		return fmt.Errorf("the peer ends TLS: %s: %w", alert, ErrLinkLost)
	}
}

// explainOwn says which certificate a peer has refused, and what cures that.
func explainOwn(alert string, c *x509.Certificate) string {
	now := time.Now()
	switch {
	case now.After(c.NotAfter):
		return fmt.Sprintf("that of %q, which expired at %s: issue it again", certName(c), c.NotAfter.Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return fmt.Sprintf("that of %q, which is valid only from %s: compare the hosts' clocks", certName(c), c.NotBefore.Format(time.RFC3339))
	case strings.Contains(alert, "expired"):
		return fmt.Sprintf("that of %q, which is valid until %s here: compare the hosts' clocks", certName(c), c.NotAfter.Format(time.RFC3339))
	case strings.Contains(alert, "authority"):
		return fmt.Sprintf("that of %q, signed by %q: issue both sides' with the same `migrate pki` directory", certName(c), c.Issuer.CommonName)
	default:
		return fmt.Sprintf("that of %q, signed by %q: issue it with `migrate pki issue`", certName(c), c.Issuer.CommonName)
	}
}
