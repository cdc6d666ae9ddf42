package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// dial connects to redis, which may just be starting.
func dial(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn, nil
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return nil, err
		}
	}
}

// load sets every value to random bytes, in one pipeline.
func load(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := dial(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	sent := make(chan error, 1)
	go func() { sent <- sendValues(conn) }()
	replies := bufio.NewReader(conn)
	for range valueCount {
		line, err := replies.ReadString('\n')
		if err != nil {
			return fmt.Errorf("fill redis: %w", err)
		}
		if line != "+OK\r\n" {
			return fmt.Errorf("fill redis: it says %q", line)
		}
	}
	return <-sent
}

func sendValues(w io.Writer) error {
	// Random, so that nothing on the way can compress it. Not a secret: any seed does.
	random := rand.NewChaCha8([32]byte{1})
	value := make([]byte, valueBytes)
	out := bufio.NewWriterSize(w, 1<<20)
	for i := range valueCount {
		_, _ = random.Read(value)
		name := key(i)
		fmt.Fprintf(out, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n", len(name), name, len(value))
		_, _ = out.Write(value)
		_, _ = out.WriteString("\r\n")
	}
	return out.Flush()
}

// digest hashes redis' own digests of all values. DEBUG is for local clients only, so it is asked from inside.
func digest(ctx context.Context, h *lab.Host) (string, error) {
	const atOnce = 400
	sum := sha256.New()
	for from := 0; from < valueCount; from += atOnce {
		args := []string{"migrate", "exec", "web", "redis-cli", "debug", "digest-value"}
		for i := from; i < min(from+atOnce, valueCount); i++ {
			args = append(args, key(i))
		}
		out, err := h.Run(ctx, args...)
		if err != nil {
			return "", fmt.Errorf("take digest: %w", err)
		}
		if strings.Contains(out, "ERR") || strings.Count(out, "\n") != len(args)-6 {
			return "", errors.New("take digest: redis says " + out)
		}
		_, _ = io.WriteString(sum, out)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
