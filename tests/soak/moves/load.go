package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"
)

// load writes to redis and reads back what it wrote, over one connection.
type load struct {
	conn    net.Conn
	writes  atomic.Int64
	waited  atomic.Int64 // ns, the longest for a reply
	stopped atomic.Bool
	ended   chan struct{}
	err     error // once ended
}

// keys is how many different ones are written: each is read back, and later overwritten.
const keys = 5000

func (w *world) load(ctx context.Context, address string) (*load, error) {
	conn, err := w.C.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	l := &load{conn: conn, ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		if err := l.write(); !l.stopped.Load() {
			l.err = err
		}
	}()
	return l, nil
}

// write goes on until something fails.
func (l *load) write() error {
	replies := bufio.NewReader(l.conn)
	for n := int64(1); ; n++ {
		began := time.Now()
		value := strings.Repeat(fmt.Sprintf("%08x", n), 100)
		back := (n * 7) % min(n, keys) // of what was written since the key's turn came
		fmt.Fprintf(l.conn, "SET key:%d %s\r\nSTRLEN key:%d\r\nGET key:%d\r\n", n%keys, value, back, n%keys)
		for _, want := range []string{"+OK", "", fmt.Sprintf("$%d", len(value)), value} {
			reply, err := replies.ReadString('\n')
			if err != nil {
				return fmt.Errorf("write %d: %w", n, err)
			}
			reply = strings.TrimRight(reply, "\r\n")
			if want == "" && reply != ":800" && reply != ":0" || want != "" && reply != want {
				return fmt.Errorf("write %d: reply %.40q, want %.40q", n, reply, want)
			}
		}
		l.writes.Store(n)
		l.waited.Store(max(l.waited.Load(), int64(time.Since(began))))
		time.Sleep(time.Millisecond)
	}
}

func (l *load) written() int64 { return l.writes.Load() }

// longest is how long the slowest reply took since the last call.
func (l *load) longest() time.Duration { return time.Duration(l.waited.Swap(0)) }

// unharmed waits for more writes. The error says what went wrong.
func (l *load) unharmed() error {
	from, deadline := l.written(), time.After(patience)
	for l.written() < from+3 {
		select {
		case <-l.ended:
			return fmt.Errorf("the load's connection broke after %d writes: %w", l.written(), l.err)
		case <-deadline:
			return fmt.Errorf("the load gets no replies any more, after %d", l.written())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

func (l *load) close() {
	l.stopped.Store(true)
	_ = l.conn.Close()
	<-l.ended
}
