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
		return fmt.Errorf("%w: the caller has none", ErrCertificate)
	}
	return explainAlert(err)
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

// explainAlert names the side that is at fault when the peer ends the connection by a TLS alert.
func explainAlert(err error) error {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return err
	}
	alert := strings.TrimPrefix(op.Err.Error(), "tls: ")
	switch {
	case strings.Contains(alert, "certificate"), strings.Contains(alert, "unknown authority"):
		return fmt.Errorf("%w: the peer does not take ours (%s); its log says more", ErrCertificate, alert)
	default:
		return fmt.Errorf("the peer ends TLS: %s: %w", alert, ErrLinkLost)
	}
}
