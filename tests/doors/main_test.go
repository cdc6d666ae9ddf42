// Package doors stands before a real `migrate serve` with callers that mean it ill: silent ones, floods of them, strangers with
// the wrong certificate, and peers that are let in and then do as they please. Meanwhile an honest peer's moves pass.
package doors

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/pki"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/tests/lab"
	"github.com/livemigrate/migrate/tests/lab/labtest"
	"github.com/livemigrate/migrate/transport"
)

const containerIP = "10.77.0.100"

// world is a lab whose hosts listen for each other.
type world struct {
	*lab.Lab
	t   *testing.T
	ctx context.Context
}

func newWorld(t *testing.T, limit time.Duration) *world {
	t.Helper()
	ctx, l := labtest.Up(t, "d", limit)
	return &world{Lab: l, t: t, ctx: ctx}
}

// serve listens on the host at a port.
func (w *world) serve(h *lab.Host, port string, flags ...string) *lab.Server {
	w.t.Helper()
	server, err := h.Serve(w.ctx, "tls://"+h.IP+":"+port, flags...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		server.Stop()
		if text, err := os.ReadFile(server.Log); w.t.Failed() && err == nil {
			w.t.Logf("%s:%s says\n%s", h.Name, port, text[max(0, len(text)-3000):])
		}
	})
	return server
}

// run starts a container.
func (w *world) run(h *lab.Host, id, address string) {
	w.t.Helper()
	if err := h.Bundle(w.ctx, "busybox", "/srv/bundles/"+id); err != nil {
		w.t.Fatal(err)
	}
	err := h.Start(w.ctx, "migrate", "run", "--detach", "--log-file", "/srv/"+id+".log", "--bundle", "/srv/bundles/"+id,
		"--network", "bridge=br0,address="+address+"/24", id)
	if err != nil {
		w.t.Fatal(err)
	}
}

// push moves it, or not; it returns the exit code and the result.
func (w *world) push(from *lab.Host, args ...string) (int, *lab.PushResult) {
	w.t.Helper()
	p, err := from.Push(w.ctx, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer p.Kill()
	code, err := p.Wait(time.Minute)
	if err != nil {
		w.t.Fatalf("push %q: %v: %s", args, err, p.Said())
	}
	if p.Result.Outcome == "" {
		w.t.Errorf("push %q says only: %s", args, p.Said())
	}
	return code, &p.Result
}

// refused requires that a push says so in one line.
func (w *world) refused(wantCode int, says string, args ...string) {
	w.t.Helper()
	began := time.Now()
	code, result := w.push(w.A, args...)
	if code != wantCode || !strings.Contains(result.Error, says) || strings.Contains(result.Error, "\n") {
		w.t.Errorf("push %q exits with %d and says %q; want %d and one line with %q", args, code, result.Error, wantCode, says)
	}
	if took := time.Since(began); took > 15*time.Second {
		w.t.Errorf("the refusal took %v", took)
	}
}

// toll is what a process and the host behind it hold.
type toll struct{ files, threads, kibibytes, keepers int }

func (w *world) toll(s *lab.Server, h *lab.Host) (c toll) {
	w.t.Helper()
	proc := ""
	for _, pid := range h.Named("migrate") { // s.Cmd is what entered the host
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(string(line), "\x00serve\x00") && strings.Contains(string(line), s.Cmd.Args[len(s.Cmd.Args)-1]) {
			proc = fmt.Sprintf("/proc/%d", pid)
		}
	}
	files, err := os.ReadDir(proc + "/fd")
	if err != nil {
		w.t.Fatal(err)
	}
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "Threads: %d", &c.threads)
		_, _ = fmt.Sscanf(line, "VmRSS: %d", &c.kibibytes)
	}
	c.files, c.keepers = len(files), len(h.Keepers())
	return c
}

// until waits for the toll to be paid back, and returns the last one.
func (w *world) until(s *lab.Server, h *lab.Host, paid func(toll) bool) toll {
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if c := w.toll(s, h); paid(c) || time.Now().After(end) {
			return c
		}
	}
}

func (c toll) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %d MiB, %d keepers", c.files, c.threads, c.kibibytes>>10, c.keepers)
}

// dialer connects from a host, as whoever has the certificates.
type dialer struct {
	transport.Dialer
	host *lab.Host
}

func (w *world) dialer(from, to *lab.Host, port string, c transport.Certificates) *dialer {
	w.t.Helper()
	address := transport.Address{Scheme: transport.TLS, Host: to.IP, Port: port}
	d, err := transport.NewDialer(address, &transport.DialOptions{Certificates: c})
	if err != nil {
		w.t.Fatal(err)
	}
	return &dialer{d, from}
}

func (d *dialer) DialConn(ctx context.Context) (conn net.Conn, err error) {
	ns, err := netns.OfProcess(d.host.Holder())
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = netns.Do(ns, func() (err error) {
		conn, err = d.Dialer.DialConn(ctx)
		return err
	})
	return conn, err
}

// stranger is a peer whose certificate is of the hosts' authority, and whom nobody knows.
func (w *world) stranger(name string) transport.Certificates {
	w.t.Helper()
	f, err := pki.Issue(pki.Request{Dir: filepath.Join("/var/lib/migrate-lab", w.Name, "ca"), Out: w.t.TempDir(), Name: name})
	if err != nil {
		w.t.Fatal(err)
	}
	return transport.Certificates{Cert: f.Cert, Key: f.Key, CA: f.CA}
}
