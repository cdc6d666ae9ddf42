package doors

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/tests/lab"
	"github.com/livemigrate/migrate/transport"
)

const (
	silent   = 200 // connections that are held and say nothing, or three bytes
	sessions = 24  // that one peer with a certificate opens
)

func TestDoors(t *testing.T) {
	w := newWorld(t, 4*time.Minute)
	for name, test := range map[string]func(w *world){
		"FloodOfStrangers": floodOfStrangers, "SessionsOfOnePeer": sessionsOfOnePeer, "Limits": limits,
		"ForcedCommand": forcedCommand,
	} {
		t.Run(name, func(t *testing.T) { test(&world{w.Lab, t, w.ctx}) })
	}
}

// Callers that never say who they are, held by the hundred and made anew as fast as can be, cost nobody a move, and the host
// neither descriptors nor memory nor processes.
func floodOfStrangers(w *world) {
	t := w.t
	server := w.serve(w.B, "7441", "--allow", w.A.Name)
	w.run(w.A, "web", containerIP)
	before := w.toll(server, w.B)
	f := w.flood(w.C, w.B.IP+":7441")
	code, result := w.push(w.A, "web", "tls://"+w.B.IP+":7441")
	during := w.toll(server, w.B)
	made := f.end()
	if code != 0 {
		t.Errorf("push exits with %d beside the flood: %s", code, result.Error)
	}
	after := w.until(server, w.B, func(c toll) bool { return c.files <= before.files+8 })
	t.Logf("%d callers in the flood; a move beside it took %.0f ms", made, result.TotalMS)
	t.Logf("before: %v", before)
	t.Logf("during: %v", during)
	t.Logf("after:  %v", after)
	if during.files > before.files+2*128 || after.files > before.files+8 {
		t.Error("descriptors were exhausted, or are left")
	}
	if during.kibibytes > before.kibibytes+128<<10 || during.threads > before.threads+64 {
		t.Error("the flood cost memory or threads")
	}

	// The one that is in has words for the one that is not allowed in.
	d := w.dialer(w.C, w.B, "7441", w.stranger("mallory"))
	_, err := transport.Connect(w.ctx, d, nil)
	if !errors.Is(err, transport.ErrCertificate) || !strings.Contains(err.Error(), `"mallory" is not among those allowed here`) {
		t.Errorf("a certificate that is not allowed is told %v", err)
	}
	if d.hello(w) {
		t.Error("a caller without a certificate is let in")
	}
}

// flood is a crowd of callers from one host.
type flood struct {
	stop context.CancelFunc
	busy sync.WaitGroup
	made atomic.Int64
}

func (w *world) flood(from *lab.Host, address string) *flood {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.ctx)
	f := &flood{stop: stop}
	ns, err := netns.OfProcess(from.Holder())
	if err != nil {
		w.t.Fatal(err)
	}
	full := make(chan struct{})
	f.busy.Go(func() {
		defer ns.Close()
		_ = netns.Do(ns, func() error {
			var held []net.Conn
			for ctx.Err() == nil {
				conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
				if err != nil {
					continue
				}
				f.made.Add(1)
				if f.made.Load()%2 == 0 {
					_, _ = conn.Write([]byte{22, 3, 1}) // the beginning of TLS, and no more
				}
				if held = append(held, conn); len(held) == silent {
					select {
					case <-full:
					default:
						close(full)
					}
				}
				if len(held) > silent {
					_ = held[0].Close()
					held = held[1:]
				}
			}
			for _, conn := range held {
				_ = conn.Close()
			}
			return nil
		})
	})
	select {
	case <-full:
	case <-time.After(30 * time.Second):
		w.t.Error("the flood does not come about")
	}
	return f
}

func (f *flood) end() int64 {
	f.stop()
	f.busy.Wait()
	return f.made.Load()
}

// hello tells whether a caller without a certificate gets as far as an answer.
func (d *dialer) hello(w *world) bool {
	conn, err := d.host.Dial(w.ctx, strings.TrimPrefix(d.String(), "tls://"))
	if err != nil {
		return false
	}
	defer conn.Close()
	if err := transport.WritePreamble(w.ctx, conn, transport.Preamble{Kind: transport.KindControl, Token: transport.NewToken()}); err != nil {
		return false
	}
	return transport.ReadAnswer(w.ctx, conn) == nil
}

// A peer that is let in opens sessions and says nothing in them: each is a process, so there is an end to them, and others move.
func sessionsOfOnePeer(w *world) {
	t := w.t
	server := w.serve(w.B, "7441", "--max-moves", "1")
	w.run(w.A, "job", "10.77.0.102")
	before := w.toll(server, w.B)
	mallory := w.dialer(w.C, w.B, "7441", w.stranger("mallory"))
	var open []transport.Session
	for range sessions {
		s, err := transport.Connect(w.ctx, mallory, nil)
		if err == nil {
			open = append(open, s)
		} else if !errors.Is(err, transport.ErrBusy) || !strings.Contains(err.Error(), `sessions of "mallory" are open here, which is the limit`) {
			t.Fatal(err)
		}
	}
	during := w.toll(server, w.B)
	code, result := w.push(w.A, "job", "tls://"+w.B.IP+":7441")
	if code != 0 {
		t.Errorf("push exits with %d beside mallory: %s", code, result.Error)
	}
	for _, s := range open {
		go s.Close()
	}
	after := w.until(server, w.B, func(c toll) bool { return c.keepers == 0 && c.files <= before.files+4 })
	t.Logf("%d of %d sessions were let in; a move beside them took %.0f ms", len(open), sessions, result.TotalMS)
	t.Logf("before: %v", before)
	t.Logf("during: %v", during)
	t.Logf("after:  %v", after)
	if len(open) == 0 || len(open) > 9 || during.keepers > 9 {
		t.Errorf("%d sessions and %d processes of one peer, want 9 at most", len(open), during.keepers)
	}
	if after.keepers > 0 || after.files > before.files+4 {
		t.Error("something is left")
	}
}

// What a host does not take it refuses by the name of the limit; a move that is under way ends with the source running on.
func limits(w *world) {
	t := w.t
	w.serve(w.B, "7441", "--max-moves", "1", "--max-time", "8s")
	w.serve(w.B, "7442", "--max-size", "1M")
	w.run(w.A, "slow", "10.77.0.103")
	w.run(w.A, "other", "10.77.0.101")
	w.refused(4, "1 MiB at most (--max-size)", "slow", "tls://"+w.B.IP+":7442")

	slow, err := w.A.Push(w.ctx, "--bandwidth-limit", "100KB/s", "--retry", "0", "slow", "tls://"+w.B.IP+":7441")
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Kill()
	if !slow.Until("rootfs") {
		t.Fatalf("the first move ended early: %s", slow.Result.Error)
	}
	w.refused(4, "receives 1 containers already, which is as many as it takes at once (--max-moves)", "other", "tls://"+w.B.IP+":7441")
	code, err := slow.Wait(40 * time.Second)
	if err != nil || code != 1 || !strings.Contains(slow.Result.Error, "not over within 8s (--max-time there)") {
		t.Errorf("the slow move exits with %d, %v: %s", code, err, slow.Result.Error)
	}
	if code, result := w.push(w.A, "other", "tls://"+w.B.IP+":7441"); code != 0 {
		t.Errorf("afterwards push exits with %d: %s", code, result.Error)
	}
	if out, err := w.A.Run(w.ctx, "migrate", "state", "slow"); err != nil || !strings.Contains(out, `"running"`) {
		t.Errorf("the container that stayed: %s, %v", out, err)
	}
}
