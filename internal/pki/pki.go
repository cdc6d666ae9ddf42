// Package pki makes the certificates that two hosts need to move containers between them over TLS: one authority, and
// from it one certificate a host, which serves as client's and as server's.
//
//	DIR/ca.crt    the authority's certificate, for every host
//	DIR/ca.key    its private key, for the one who issues; whoever has it can move containers to every host
//	OUT/NAME.crt  a host's certificate
//	OUT/NAME.key  its private key
//	OUT/ca.crt    a copy of the authority's certificate
package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

var (
	// ErrExists: a file that would be written is there already. Choose another place, or overwrite on purpose.
	ErrExists = errors.New("exists already")
	// ErrNoAuthority: the directory has no authority. Make one first.
	ErrNoAuthority = errors.New("no certificate authority")
)

const (
	// DefaultAuthorityLife is how long an authority is valid.
	DefaultAuthorityLife = 10 * 365 * 24 * time.Hour
	// DefaultLife is how long a host's certificate is valid.
	DefaultLife = 365 * 24 * time.Hour

	authorityName = "ca" // of the authority's files
	// backdate lets a certificate be valid at once on a host whose clock is behind.
	backdate = 10 * time.Minute
)

// Authority says what authority to make.
type Authority struct {
	Dir   string
	Life  time.Duration // zero: DefaultAuthorityLife
	Force bool          // overwrite one that is there; its certificates are worthless then
}

// Request says what certificate to issue.
type Request struct {
	Dir   string        // the authority's
	Out   string        // where the files go; empty: Dir
	Name  string        // the owner's name, and of the files
	Hosts []string      // names and IP addresses by which the owner is reached, besides Name
	Life  time.Duration // zero: DefaultLife; never longer than the authority's
	Force bool          // overwrite files of the same name
}

// Files are the files that were written.
type Files struct {
	Cert, Key, CA string // CA and Cert are the same for an authority
	Hosts         []string
	Expires       time.Time
}

// Init makes a certificate authority in a.Dir, which it creates if need be. ErrExists: one is there.
func Init(a Authority) (*Files, error) {
	f := &Files{Cert: filepath.Join(a.Dir, authorityName+".crt"), Key: filepath.Join(a.Dir, authorityName+".key")}
	f.CA = f.Cert
	if err := refuseExisting(a.Force, f.Key, f.Cert); err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	template, err := newTemplate("migrate authority "+time.Now().UTC().Format(time.DateOnly), life(a.Life, DefaultAuthorityLife))
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.MaxPathLenZero = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	if err := os.MkdirAll(a.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	f.Expires = template.NotAfter
	if err := write(f, template, nil, a.Force); err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	return f, nil
}

// Issue makes a key and a certificate for it. ErrNoAuthority: Init first. ErrExists: the name has files already.
func Issue(r Request) (*Files, error) {
	f, err := issue(r)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %q: %w", r.Name, err)
	}
	return f, nil
}

// validName tells what can be a file's name and a name in a certificate. The pattern is compiled when it is used: a counted
// repeat takes long, and every start of the program would pay for it.
func validName(name string) bool {
	return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$`).MatchString(name)
}

func issue(r Request) (*Files, error) {
	if !validName(r.Name) || r.Name == authorityName {
		return nil, fmt.Errorf("the name must be of letters, digits, dots, dashes and colons, at most 64, and not %q", authorityName)
	}
	authority, err := load(r.Dir)
	if err != nil {
		return nil, err
	}
	if r.Out == "" {
		r.Out = r.Dir
	}
	f := &Files{
		Cert: filepath.Join(r.Out, r.Name+".crt"),
		Key:  filepath.Join(r.Out, r.Name+".key"),
		CA:   filepath.Join(r.Out, authorityName+".crt"),
	}
	if err := refuseExisting(r.Force, f.Key, f.Cert); err != nil {
		return nil, err
	}
	template, err := newTemplate(r.Name, life(r.Life, DefaultLife))
	if err != nil {
		return nil, err
	}
	if end := authority.Leaf.NotAfter; template.NotAfter.After(end) {
		template.NotAfter = end
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	if f.Hosts, err = addHosts(template, append([]string{r.Name}, r.Hosts...)); err != nil {
		return nil, err
	}
	f.Expires = template.NotAfter
	if err := os.MkdirAll(r.Out, 0o700); err != nil {
		return nil, err
	}
	if err := copyAuthority(f.CA, authority.Leaf); err != nil {
		return nil, err
	}
	return f, write(f, template, authority, r.Force)
}

// load reads the authority of a directory.
func load(dir string) (*tls.Certificate, error) {
	cert, key := filepath.Join(dir, authorityName+".crt"), filepath.Join(dir, authorityName+".key")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNoAuthority, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("load authority %s: %w", cert, err)
	}
	if !pair.Leaf.IsCA {
		return nil, fmt.Errorf("load authority %s: it is not an authority's certificate", cert)
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("load authority %s: it expired at %s: make a new one", cert, pair.Leaf.NotAfter.Format(time.RFC3339))
	}
	return &pair, nil
}

// addHosts puts each host once into the certificate, as the kind of name that it is.
func addHosts(c *x509.Certificate, hosts []string) ([]string, error) {
	var added []string
	seen := map[string]bool{}
	for _, host := range hosts {
		if seen[host] {
			continue
		}
		seen[host] = true
		ip := net.ParseIP(host)
		switch {
		case ip != nil:
			c.IPAddresses = append(c.IPAddresses, ip)
		case validName(host) && !strings.Contains(host, ":"):
			c.DNSNames = append(c.DNSNames, host)
		default:
			return nil, fmt.Errorf("%q is no host name and no IP address", host)
		}
		added = append(added, host)
	}
	return added, nil
}

func newTemplate(name string, life time.Duration) (*x509.Certificate, error) {
	if life < time.Minute {
		return nil, fmt.Errorf("a certificate for %v is of no use", life)
	}
	now := time.Now()
	return &x509.Certificate{ // the serial number is made by CreateCertificate
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-backdate),
		NotAfter:  now.Add(life),
	}, nil
}

func life(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}

// write makes the key, signs the certificate (by itself when parent is nil) and writes both, or neither.
func write(f *Files, template *x509.Certificate, parent *tls.Certificate, force bool) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	issuer, signer := template, any(key)
	if parent != nil {
		issuer, signer = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, signer)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(f.Key, "PRIVATE KEY", keyDER, 0o600, force); err != nil {
		return err
	}
	if err := writePEM(f.Cert, "CERTIFICATE", der, 0o644, force); err != nil {
		return errors.Join(err, os.Remove(f.Key)) // a key without its certificate is in the way of the next try
	}
	return nil
}

// copyAuthority puts the authority's certificate beside the new one. One that is there must be the same: another would
// be trusted by a host for a reason that is not known here.
func copyAuthority(path string, c *x509.Certificate) error {
	old, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return writePEM(path, "CERTIFICATE", c.Raw, 0o644, false)
	}
	if err != nil {
		return err
	}
	if block, _ := pem.Decode(old); block == nil || !bytes.Equal(block.Bytes, c.Raw) {
		return fmt.Errorf("%s is another authority's certificate: remove it, or choose another directory", path)
	}
	return nil
}
