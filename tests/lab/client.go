package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/livemigrate/migrate/internal/sys/netns"
)

// Client converses with a container over one connection, from the lab's client host: it can tell a lost, repeated or reordered
// answer.
type Client struct {
	conn    net.Conn
	answers atomic.Int64
	stopped atomic.Bool
	ended   chan struct{}
	err     error // once ended
}

// dialPatience is how long a container may take to listen.
const dialPatience = 10 * time.Second

// Converse asks one question after the other until Close, and checks that the n-th answer is the format filled with n.
func (l *Lab) Converse(ctx context.Context, address, question, answer string) (*Client, error) {
	conn, err := l.C.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		if err := c.converse(question, answer); !c.stopped.Load() {
			c.err = err
		}
	}()
	return c, nil
}

// Dial connects from the host, again and again while nobody listens.
func (h *Host) Dial(ctx context.Context, address string) (conn net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	ns, err := netns.OfProcess(h.Holder())
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	for {
		err := netns.Do(ns, func() (err error) {
			dialer := net.Dialer{Timeout: time.Second}
			conn, err = dialer.DialContext(ctx, "tcp", address)
			return err
		})
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// converse ends with the error that ended it.
func (c *Client) converse(question, format string) error {
	answers := bufio.NewReader(c.conn)
	for n := int64(1); ; n++ {
		if _, err := io.WriteString(c.conn, question+"\r\n"); err != nil {
			return err
		}
		answer, err := answers.ReadString('\n')
		if err != nil {
			return fmt.Errorf("answer %d: %w", n, err)
		}
		if want := fmt.Sprintf(format, n); strings.TrimRight(answer, "\r\n") != want {
			return fmt.Errorf("answer %d is %q, not %q", n, answer, want)
		}
		c.answers.Store(n)
		time.Sleep(2 * time.Millisecond)
	}
}

// Answers is how many have come.
func (c *Client) Answers() int64 { return c.answers.Load() }

// Unharmed waits for more answers; the error says that the connection broke, or that none come.
func (c *Client) Unharmed(patience time.Duration) error {
	from := c.Answers()
	deadline := time.After(patience)
	for c.Answers() < from+3 {
		select {
		case <-c.ended:
			return fmt.Errorf("the client's connection broke after %d answers: %w", c.Answers(), c.err)
		case <-deadline:
			return fmt.Errorf("the client gets no answers any more, after %d", c.Answers())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// Close ends the conversation.
func (c *Client) Close() {
	c.stopped.Store(true)
	_ = c.conn.Close()
	<-c.ended
}
