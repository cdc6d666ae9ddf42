package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestIssuedCertificateServesBothSides(t *testing.T) {
	dir, out := filepath.Join(t.TempDir(), "pki"), filepath.Join(t.TempDir(), "host-a")
	if _, err := Init(Authority{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	f, err := Issue(Request{Dir: dir, Out: out, Name: "host-a", Hosts: []string{"10.0.0.1", "fd00::1", "host-a.lan", "host-a"}})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	for _, name := range []string{"host-a", "host-a.lan", "10.0.0.1", "fd00::1"} {
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
			_, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}})
			if err != nil {
				t.Errorf("as %s, usage %d: %v", name, usage, err)
			}
		}
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: "host-b", Roots: roots}); err == nil {
		t.Error("valid for another host")
	}
	if pair.Leaf.IsCA {
		t.Error("a host can issue certificates")
	}
	if len(f.Hosts) != 4 {
		t.Errorf("hosts are %q", f.Hosts)
	}
}

func TestKeysAreForOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	authority, err := Init(Authority{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	host, err := Issue(Request{Dir: dir, Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, authority.Key: 0o600, host.Key: 0o600, authority.Cert: 0o644, host.Cert: 0o644} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode().Perm(), err, mode)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestNothingIsOverwrittenWithoutForce(t *testing.T) {
	dir := t.TempDir()
	if _, err := Init(Authority{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := Issue(Request{Dir: dir, Name: "a"}); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir)
	if _, err := Init(Authority{Dir: dir}); !errors.Is(err, ErrExists) {
		t.Errorf("init: %v", err)
	}
	if _, err := Issue(Request{Dir: dir, Name: "a"}); !errors.Is(err, ErrExists) {
		t.Errorf("issue: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "a.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := Issue(Request{Dir: dir, Name: "a"}); !errors.Is(err, ErrExists) {
		t.Errorf("issue over a certificate without key: %v", err)
	}
	delete(before, "a.key")
	for name, text := range snapshot(t, dir) {
		if before[name] != text {
			t.Errorf("%s has changed", name)
		}
	}
	if _, err := Issue(Request{Dir: dir, Name: "a", Force: true}); err != nil {
		t.Errorf("issue with force: %v", err)
	}
	if snapshot(t, dir)["a.crt"] == before["a.crt"] {
		t.Error("force has issued nothing")
	}
}

func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(text)
	}
	return files
}

func TestBadRequestsAreRefused(t *testing.T) {
	dir := t.TempDir()
	if _, err := Issue(Request{Dir: dir, Name: "a"}); !errors.Is(err, ErrNoAuthority) {
		t.Errorf("without authority: %v", err)
	}
	if _, err := Init(Authority{Dir: dir, Life: time.Hour}); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]Request{
		"path as name":      {Name: "../a"},
		"no name":           {},
		"authority's name":  {Name: "ca"},
		"option as name":    {Name: "-a"},
		"address with port": {Name: "a", Hosts: []string{"10.0.0.1:7440"}},
		"space in host":     {Name: "a", Hosts: []string{"a b"}},
		"no time":           {Name: "a", Life: time.Second},
	} {
		r.Dir = dir
		if _, err := Issue(r); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	f, err := Issue(Request{Dir: dir, Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if time.Until(f.Expires) > time.Hour {
		t.Errorf("outlives its authority, until %v", f.Expires)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 4 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestAnotherAuthorityIsNotMixedIn(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	for _, dir := range []string{one, two} {
		if _, err := Init(Authority{Dir: dir}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Issue(Request{Dir: one, Out: two, Name: "a"})
	if err == nil || !strings.Contains(err.Error(), "another authority") {
		t.Errorf("issue into another authority's directory: %v", err)
	}
	if _, err := os.Stat(filepath.Join(two, "a.key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key was left there: %v", err)
	}
}
