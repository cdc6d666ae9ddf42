package transport_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/livemigrate/migrate/transport"
)

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// expire signs a certificate again, with the authority of dir, so that its time is over.
func expire(t testing.TB, dir string, c transport.Certificates) transport.Certificates {
	t.Helper()
	return reissue(t, dir, c, func(x *x509.Certificate) {
		x.NotBefore, x.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	})
}

// reissue signs a certificate again, with the authority of dir, when it has been changed.
func reissue(t testing.TB, dir string, c transport.Certificates, change func(*x509.Certificate)) transport.Certificates {
	t.Helper()
	authority, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	template := *pair.Leaf
	change(&template)
	der, err := x509.CreateCertificate(rand.Reader, &template, authority.Leaf, pair.Leaf.PublicKey, authority.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}
