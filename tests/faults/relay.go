package main

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/tests/lab"
)

// relay copies connections on a host, and harms them when told to.
type relay struct {
	ns       *lab.Host
	to       string
	listener net.Listener
	refuse   atomic.Bool
	alter    atomic.Int64 // so many pieces are to be altered

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	busy  sync.WaitGroup
}

func newRelay(h *lab.Host, listen, to string) (*relay, error) {
	r := &relay{ns: h, to: to, conns: make(map[net.Conn]struct{})}
	err := r.on(func() (err error) {
		r.listener, err = new(net.ListenConfig).Listen(context.Background(), "tcp", listen)
		return err
	})
	if err != nil {
		return nil, err
	}
	r.busy.Go(r.accept)
	return r, nil
}

// on calls f in the host's network.
func (r *relay) on(f func() error) error {
	ns, err := netns.OfProcess(r.ns.Holder())
	if err != nil {
		return err
	}
	defer ns.Close()
	return netns.Do(ns, f)
}

func (r *relay) accept() {
	for {
		from, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.busy.Go(func() { r.connect(from) })
	}
}

func (r *relay) connect(from net.Conn) {
	var to net.Conn
	err := r.on(func() (err error) {
		dialer := net.Dialer{Timeout: time.Second}
		to, err = dialer.DialContext(context.Background(), "tcp", r.to)
		return err
	})
	if err != nil || r.refuse.Load() || !r.keep(from, to) {
		reset(from)
		if err == nil {
			reset(to)
		}
		return
	}
	var both sync.WaitGroup
	both.Go(func() { r.copy(from, to) })
	both.Go(func() { r.copy(to, from) })
	both.Wait()
	r.mu.Lock()
	delete(r.conns, from)
	delete(r.conns, to)
	r.mu.Unlock()
	_, _ = from.Close(), to.Close()
}

func (r *relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse.Load() {
		return false
	}
	for _, c := range conns {
		r.conns[c] = struct{}{}
	}
	return true
}

func (r *relay) copy(to, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if r.alter.Load() > 0 && r.alter.Add(-1) >= 0 {
				buf[n/2] ^= 0x20
			}
			if _, err := to.Write(buf[:n]); err != nil {
				reset(from)
				return
			}
		}
		if err != nil {
			_ = to.(*net.TCPConn).CloseWrite()
			return
		}
	}
}

// cut resets every connection, and lets none in until restore.
func (r *relay) cut() {
	r.refuse.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		reset(c)
	}
}

// restore ends what harm there is.
func (r *relay) restore() {
	r.refuse.Store(false)
	r.alter.Store(0)
}

func (r *relay) close() {
	_ = r.listener.Close()
	r.cut()
	r.busy.Wait()
}

func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}
