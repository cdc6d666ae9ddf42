package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// window is a stretch of wall clock time.
type window struct{ from, to time.Time }

// answer is a datagram that came back: when, as wall clock nanoseconds, and how many pages the container had written by then.
type answer [2]int64

// ask sends a datagram to every address each millisecond until standard input ends, and prints the answers. Two addresses
// are the same container on either host: whoever has it answers. The first answer is announced by a line of its own.
func ask(ctx context.Context, addresses []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		mu       sync.Mutex
		answers  []answer
		answered = sync.OnceFunc(func() { fmt.Fprintln(os.Stdout, "answered") })
	)
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	go func() {
		buf := make([]byte, 64)
		for {
			n, _, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if n != 16 {
				continue
			}
			mu.Lock()
			answers = append(answers, answer{time.Now().UnixNano(), int64(binary.BigEndian.Uint64(buf[8:]))})
			mu.Unlock()
			answered()
		}
	}()
	var peers []*net.UDPAddr
	for _, address := range addresses {
		peer, err := net.ResolveUDPAddr("udp", address)
		if err != nil {
			return err
		}
		peers = append(peers, peer)
	}
	question := make([]byte, 16)
	for due := time.Now(); ctx.Err() == nil; due = due.Add(time.Millisecond) {
		time.Sleep(time.Until(due))
		binary.BigEndian.PutUint64(question, uint64(due.UnixNano()))
		for _, peer := range peers {
			// A host that is not there yet, or no more, is what is being measured.
			_, _ = conn.WriteToUDP(question, peer)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return json.NewEncoder(os.Stdout).Encode(answers)
}

// asker is the client's process, in the client's namespaces.
type asker struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *watchedBuffer
}

func startAsker(ctx context.Context, s *stage, addresses []string) (*asker, error) {
	a := &asker{cmd: s.lab.C.Command(ctx, append([]string{s.self, "ask"}, addresses...)...), out: &watchedBuffer{}}
	a.cmd.Stdout, a.cmd.Stderr = a.out, os.Stderr
	var err error
	if a.stdin, err = a.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return a, a.cmd.Start()
}

// answered waits for the first answer.
func (a *asker) answered(ctx context.Context) error {
	for range 3000 {
		if strings.HasPrefix(a.out.String(), "answered\n") {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return errors.New("the container does not answer the client before the move")
}

// end ends the client, which goes on for a moment, so that the first answer after the move is in.
func (a *asker) end(w window) (answers, error) {
	time.Sleep(500 * time.Millisecond)
	a.stdin.Close()
	if err := a.cmd.Wait(); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	var all answers
	if err := json.Unmarshal([]byte(strings.TrimPrefix(a.out.String(), "answered\n")), &all); err != nil {
		return nil, fmt.Errorf("read the client's answers: %w", err)
	}
	if len(all) == 0 || all[len(all)-1][0] < w.to.UnixNano() {
		return nil, errors.New("the container does not answer the client after the move")
	}
	return all, nil
}

func (a *asker) kill() {
	if a.cmd.ProcessState == nil {
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
	}
}

// watchedBuffer can be read while a process writes to it.
type watchedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *watchedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *watchedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
