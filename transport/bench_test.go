package transport_test

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/livemigrate/migrate/internal/pki"
	"github.com/livemigrate/migrate/transport"
)

// BenchmarkSend moves frames of 1 MiB through a session. The heap column is what both ends together hold at the end:
// buffers must not grow with the amount.
func BenchmarkSend(b *testing.B) {
	tlsDir := b.TempDir()
	authority(b, tlsDir)
	host := issue(b, tlsDir, pki.Request{Name: "host", Hosts: []string{"127.0.0.1"}})
	for _, scheme := range []struct {
		name string
		dial func(b *testing.B) (transport.Dialer, transport.Acceptor)
	}{
		{"memory", func(*testing.B) (transport.Dialer, transport.Acceptor) { return transport.Memory() }},
		{"unix", func(b *testing.B) (transport.Dialer, transport.Acceptor) { return dialUnix(b) }},
		{"tls", func(b *testing.B) (transport.Dialer, transport.Acceptor) { return dialTLS(b, host, host) }},
		{"ssh", func(b *testing.B) (transport.Dialer, transport.Acceptor) { return dialSSH(b, sshHost(b)) }},
	} {
		for _, lanes := range []int{1, 2, 4} {
			b.Run(fmt.Sprintf("%s/lanes=%d", scheme.name, lanes), func(b *testing.B) {
				d, a := scheme.dial(b)
				benchmarkSend(b, d, a, lanes)
			})
		}
	}
}

func benchmarkSend(b *testing.B, d transport.Dialer, a transport.Acceptor, lanes int) {
	hub := transport.NewHub(a, nil)
	defer hub.Close()
	from, err := transport.Connect(b.Context(), d, &transport.ConnectOptions{Lanes: lanes})
	if err != nil {
		b.Fatal(err)
	}
	to, err := hub.Accept(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer closeBoth(from, to)
	const size = 1 << 20
	frame := make([]byte, size)
	var left atomic.Int64
	left.Store(int64(b.N))
	b.SetBytes(size)
	b.ResetTimer()
	var wait sync.WaitGroup
	for i := range lanes {
		wait.Go(func() {
			for left.Add(-1) >= 0 {
				if err := from.Lanes()[i].Send(b.Context(), []byte("head"), frame); err != nil {
					b.Error(err)
				}
			}
			if err := from.Lanes()[i].Send(b.Context(), nil); err != nil {
				b.Error(err)
			}
		})
		wait.Go(func() {
			buf := make([]byte, 0, transport.MaxFrame)
			for {
				frame, err := to.Lanes()[i].Recv(b.Context(), buf)
				if err != nil {
					b.Error(err)
				}
				if err != nil || len(frame) == 0 {
					return
				}
			}
		})
	}
	wait.Wait()
	b.StopTimer()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapInuse)/(1<<20), "heap-MiB")
}

// BenchmarkSmallFrames is the rate of short messages, as a file tree makes them.
func BenchmarkSmallFrames(b *testing.B) {
	d, a := dialUnix(b)
	hub := transport.NewHub(a, nil)
	defer hub.Close()
	from, err := transport.Connect(b.Context(), d, &transport.ConnectOptions{Lanes: 1})
	if err != nil {
		b.Fatal(err)
	}
	to, err := hub.Accept(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer closeBoth(from, to)
	frame := make([]byte, 100)
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for range b.N {
			if from.Lanes()[0].Send(b.Context(), frame) != nil {
				return
			}
		}
	}()
	var buf []byte
	for range b.N {
		if buf, err = to.Lanes()[0].Recv(b.Context(), buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkProxy is what `serve` adds between a peer and the session's owner.
func BenchmarkProxy(b *testing.B) {
	for _, scheme := range []string{"unix", "tls"} {
		b.Run(scheme, func(b *testing.B) {
			back, owner := dialUnix(b)
			var front transport.Dialer
			var calls transport.Acceptor
			if scheme == "unix" {
				front, calls = dialUnix(b)
			} else {
				dir := b.TempDir()
				authority(b, dir)
				host := issue(b, dir, pki.Request{Name: "host", Hosts: []string{"127.0.0.1"}})
				front, calls = dialTLS(b, host, host)
			}
			go func() {
				for {
					conn, _, err := calls.AcceptConn(b.Context())
					if err != nil {
						return
					}
					go func() {
						p, err := transport.ReadPreamble(b.Context(), conn)
						if err != nil {
							return
						}
						to, err := back.DialConn(b.Context())
						if err != nil {
							return
						}
						if transport.WritePreamble(b.Context(), to, p) == nil {
							transport.Proxy(b.Context(), conn, to)
						}
					}()
				}
			}()
			benchmarkSend(b, front, owner, 1)
		})
	}
}

func closeBoth(a, b transport.Session) {
	var wait sync.WaitGroup
	wait.Go(func() { a.Close() })
	wait.Go(func() { b.Close() })
	wait.Wait()
}
