package migrate

import (
	"path/filepath"
	"testing"
	"time"
)

// A keeper's working directory is not the caller's: a relative path would name another file there.
func TestRelativePathsMeanTheCallersFiles(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	host, err := Host{Root: "state", Journals: "./journal", CRIU: "./criu"}.fill()
	if err != nil {
		t.Fatal(err)
	}
	o := &PushOptions{Certificates: Certificates{Cert: "a.crt", Key: "keys/a.key", CA: "../ca.crt"}}
	order, err := o.order(host, "web", "tls://b")
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		order.Root:              filepath.Join(dir, "state"),
		order.Journals:          filepath.Join(dir, "journal"),
		order.CRIU:              filepath.Join(dir, "criu"),
		order.Certificates.Cert: filepath.Join(dir, "a.crt"),
		order.Certificates.Key:  filepath.Join(dir, "keys/a.key"),
		order.Certificates.CA:   filepath.Join(filepath.Dir(dir), "ca.crt"),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	host, err = Host{CRIU: "criu-4"}.fill()
	if err != nil || host.CRIU != "criu-4" {
		t.Errorf("a name for PATH became %s, %v", host.CRIU, err)
	}
}

func TestRetryCanBeSwitchedOff(t *testing.T) {
	for retry, want := range map[time.Duration]time.Duration{0: 30 * time.Second, NoRetry: 0, time.Second: time.Second} {
		order, err := (&PushOptions{Retry: retry}).order(Host{}, "web", "tls://b")
		if err != nil || order.Retry != want {
			t.Errorf("retry %v became %v, %v", retry, order.Retry, err)
		}
	}
}
