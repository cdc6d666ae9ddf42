package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// history is what the client saw. Times are nanoseconds of the wall clock: processes compare them.
type history struct {
	Sent       int     `json:"sent"`
	OutOfOrder int     `json:"out_of_order"` // replies that were not the number after the last one
	Replies    []reply `json:"replies"`
	Broken     string  `json:"broken,omitempty"` // what ended the connection early
}

type reply struct {
	Sent     int64 `json:"s"`
	Received int64 `json:"r"`
}

// client sends INCR every millisecond until standard input ends, waits for the last replies, and prints its history.
// It never reconnects: a broken connection is the end, and a loss.
func client(ctx context.Context, address string) error {
	conn, err := dial(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()

	var (
		mu   sync.Mutex
		sent []int64
		done = make(chan struct{}) // no more will be sent
	)
	go func() {
		defer close(done)
		sendIncrements(conn, stop, func(at time.Time) {
			mu.Lock()
			defer mu.Unlock()
			sent = append(sent, at.UnixNano())
		})
		// The peer may be in the middle of a move: its last replies have this long.
		_ = conn.SetReadDeadline(time.Now().Add(15 * time.Second))
	}()

	var h history
	lines := bufio.NewReader(conn)
	for next := 1; ; next++ {
		mu.Lock()
		outstanding := len(sent) - len(h.Replies)
		mu.Unlock()
		if outstanding == 0 && closed(done) {
			break
		}
		line, err := lines.ReadString('\n')
		if err != nil {
			h.Broken = err.Error()
			break
		}
		now := time.Now().UnixNano()
		if strings.TrimSpace(line) != fmt.Sprintf(":%d", next) {
			h.OutOfOrder++
		}
		mu.Lock()
		h.Replies = append(h.Replies, reply{Sent: sent[len(h.Replies)], Received: now})
		mu.Unlock()
	}
	conn.Close()
	<-done
	h.Sent = len(sent)
	return json.NewEncoder(os.Stdout).Encode(&h)
}

// sendIncrements keeps its schedule: after a delay it sends what is due at once, so the load does not depend on the answers.
func sendIncrements(conn net.Conn, stop <-chan struct{}, note func(time.Time)) {
	for due := time.Now(); !closed(stop); due = due.Add(time.Millisecond) {
		time.Sleep(time.Until(due))
		note(time.Now())
		if _, err := io.WriteString(conn, "*2\r\n$4\r\nINCR\r\n$7\r\ncounter\r\n"); err != nil {
			return
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// loadClient is the client's process, in the client's namespaces.
type loadClient struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   strings.Builder
}

func startClient(ctx context.Context, h *lab.Host) (*loadClient, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &loadClient{cmd: h.Command(ctx, self, "client", containerIP+":"+redisPort)}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return c, c.cmd.Start()
}

// Finish lets the client end and returns what it saw.
func (c *loadClient) Finish() (*history, error) {
	c.stdin.Close()
	if err := c.cmd.Wait(); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	var h history
	if err := json.Unmarshal([]byte(c.out.String()), &h); err != nil {
		return nil, fmt.Errorf("read the client's history: %w", err)
	}
	return &h, nil
}

// Kill ends a client that has not finished.
func (c *loadClient) Kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
}
