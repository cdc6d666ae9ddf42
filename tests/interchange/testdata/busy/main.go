// Command busy holds one of everything that a checkpoint must bring back: children and grandchildren, threads, a pipe, a
// unix socket pair, a connection over the loopback, shared memory, a file lock, a deleted open file, a timer, a handled signal.
// Every 100 ms it uses all of them and prints "round N: all well", or what was lost.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		child(os.Args[1])
		return
	}
	b := &busy{}
	check("start", b.start())
	for round := 1; ; round++ {
		if err := b.round(round); err != nil {
			fmt.Printf("round %d: lost: %v\n", round, err)
		} else {
			fmt.Printf("round %d: all well\n", round)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

type busy struct {
	in      *bufio.Reader // from the child, by a pipe
	out     *os.File      // to it
	socket  net.Conn      // to the child, a unix socket
	lo      net.Conn      // to ourselves
	shared  []byte        // with the child
	deleted *os.File
	size    int64
	ticks   atomic.Int64
	signals chan os.Signal
	spins   [4]atomic.Int64
}

func (b *busy) start() error {
	memory, err := os.Create("/dev/shm/shared")
	if err != nil {
		return err
	}
	if err := memory.Truncate(1 << 20); err != nil {
		return err
	}
	b.shared, err = syscall.Mmap(int(memory.Fd()), 0, 1<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	if b.deleted, err = os.Create("/tmp/deleted"); err != nil {
		return err
	}
	b.size = 3 << 20 // above CRIU's own limit, which runc keeps
	if os.Getenv("BUSY") == "small" {
		b.size = 4096
	}
	if _, err := b.deleted.Write(make([]byte, b.size)); err != nil {
		return err
	}
	if err := os.Remove("/tmp/deleted"); err != nil {
		return err
	}
	lock, err := os.Create("/tmp/lock")
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	if err := b.connect(); err != nil {
		return err
	}
	b.signals = make(chan os.Signal, 1)
	signal.Notify(b.signals, syscall.SIGUSR1)
	go func() {
		for range time.Tick(10 * time.Millisecond) {
			b.ticks.Add(1)
		}
	}()
	for i := range b.spins {
		go func() {
			runtime.LockOSThread()
			for {
				b.spins[i].Add(1)
				time.Sleep(5 * time.Millisecond)
			}
		}()
	}
	return b.fork()
}

// connect makes the loopback connection and an echo at its other end.
func (b *busy) connect() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		buf := make([]byte, 64)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if _, err := conn.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	b.lo, err = net.Dial("tcp", l.Addr().String())
	return err
}

func (b *busy) fork() error {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	ours := os.NewFile(uintptr(pair[0]), "ours")
	if b.socket, err = net.FileConn(ours); err != nil {
		return err
	}
	cmd := exec.Command("/bin/busy", "child")
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(pair[1]), "theirs")}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	b.in = bufio.NewReader(stdout)
	stdin, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdin, b.out = stdin, w
	return cmd.Start()
}

// child answers every line of its pipe over the pipe and over the socket, and counts in the shared memory.
func child(kind string) {
	if kind == "grandchild" {
		select {}
	}
	check("grandchild", exec.Command("/bin/busy", "grandchild").Start())
	memory, err := os.OpenFile("/dev/shm/shared", os.O_RDWR, 0)
	check("shared memory", err)
	shared, err := syscall.Mmap(int(memory.Fd()), 0, 1<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	check("shared memory", err)
	socket := os.NewFile(3, "socket")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		shared[0]++
		_, err := socket.WriteString(lines.Text() + "\n")
		check("socket", err)
		fmt.Println(lines.Text())
	}
}

func (b *busy) round(n int) error {
	word := fmt.Sprintf("word %d", n)
	count := b.shared[0]
	if _, err := fmt.Fprintln(b.out, word); err != nil {
		return err
	}
	if line, err := b.in.ReadString('\n'); err != nil || strings.TrimSpace(line) != word {
		return fmt.Errorf("pipe: %q, %w", line, err)
	}
	buf := make([]byte, 64)
	if n, err := b.socket.Read(buf); err != nil || strings.TrimSpace(string(buf[:n])) != word {
		return fmt.Errorf("unix socket: %q, %w", buf[:n], err)
	}
	if b.shared[0] != count+1 {
		return errors.New("shared memory")
	}
	if _, err := b.lo.Write([]byte(word)); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	if n, err := b.lo.Read(buf); err != nil || string(buf[:n]) != word {
		return fmt.Errorf("loopback: %q, %w", buf[:n], err)
	}
	if info, err := b.deleted.Stat(); err != nil || info.Size() != b.size {
		return fmt.Errorf("deleted file: %w", err)
	}
	return b.moving()
}

// moving checks what has to go on by itself.
func (b *busy) moving() error {
	ticks := b.ticks.Load()
	var spins [4]int64
	for i := range spins {
		spins[i] = b.spins[i].Load()
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		return err
	}
	select {
	case <-b.signals:
	case <-time.After(time.Second):
		return errors.New("signal handler")
	}
	deadline := time.Now().Add(5 * time.Second) // on a busy machine nothing goes on at once
	for b.still(ticks, spins) != nil && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	return b.still(ticks, spins)
}

// still names what has not gone on since ticks and spins.
func (b *busy) still(ticks int64, spins [4]int64) error {
	if b.ticks.Load() == ticks {
		return errors.New("timer")
	}
	for i := range spins {
		if b.spins[i].Load() == spins[i] {
			return fmt.Errorf("thread %d", i)
		}
	}
	return nil
}

func check(what string, err error) {
	if err != nil {
		fmt.Printf("lost: %s: %v\n", what, err)
		os.Exit(1)
	}
}
