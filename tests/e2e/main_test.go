// Package e2e moves real containers between the lab's hosts: real CRIU, real redis, real faults.
//
// Every test has a client that holds one connection and can tell a lost, repeated or reordered answer. What a test says of a
// move always includes that: the client's connection lives, and exactly one host runs the container.
package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// TestMain is also the client: the test program runs itself again on the lab's client host.
func TestMain(m *testing.M) {
	if address := os.Getenv("E2E_CLIENT"); address != "" {
		if err := converse(address, os.Getenv("E2E_QUESTION"), os.Getenv("E2E_ANSWER")); err != nil {
			fmt.Fprintln(os.Stderr, "client:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// converse asks one question after the other over one connection, checks that the n-th answer is the format filled with n,
// and prints a line for each. It ends well when standard input ends.
func converse(address, question, format string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
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
	answers := bufio.NewReader(conn)
	for n := 1; ; n++ {
		select {
		case <-stop:
			return nil
		case <-time.After(2 * time.Millisecond):
		}
		if _, err := io.WriteString(conn, question+"\r\n"); err != nil {
			return err
		}
		answer, err := answers.ReadString('\n')
		if err != nil {
			return fmt.Errorf("answer %d: %w", n, err)
		}
		if want := fmt.Sprintf(format, n); trimEOL(answer) != want {
			return fmt.Errorf("answer %d is %q, not %q", n, answer, want)
		}
		fmt.Println(n)
	}
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func trimEOL(s string) string {
	for s != "" && (s[len(s)-1] == '\n' || s[len(s)-1] == '\r') {
		s = s[:len(s)-1]
	}
	return s
}
