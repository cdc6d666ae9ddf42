package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/console"
)

// tree is a process with members: children it talks to over every kind of channel. A member answers a line N with "N C", C
// counting its answers, so that a member that was lost, restarted or rewound shows.
//
//	tree -- pipe: member -- pipe: member            a chain of two
//	     -- unix socket pair: member
//	     -- unix socket with a name: member
//	     -- pty: member                             its controlling terminal
//	     -- shared memory, asked by pipe: member    the answer is in the memory
//	     -- threads
//	     -- a child that comes and goes every few milliseconds
type tree struct {
	mu      sync.Mutex
	asked   int
	members map[string]*bufio.ReadWriter
	shared  []byte
	threads []chan int
	failed  error
}

const sharedFile = "/dev/shm/tree"

func startTree() (*tree, error) {
	t := &tree{members: map[string]*bufio.ReadWriter{}}
	for name, start := range map[string]func() (io.ReadWriter, error){
		"relay":  t.startPipe("relay"),
		"shared": t.startPipe("shared"),
		"pair":   startPair,
		"named":  startNamed,
		"pty":    startPty,
	} {
		channel, err := start()
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", name, err)
		}
		t.members[name] = bufio.NewReadWriter(bufio.NewReader(channel), bufio.NewWriter(channel))
	}
	var err error
	if t.shared, err = mapShared(); err != nil {
		return nil, err
	}
	for range 4 {
		t.threads = append(t.threads, startThread())
	}
	go comeAndGo(t.fail)
	return t, t.check()
}

// check asks every member one question, and every thread.
func (t *tree) check() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed != nil {
		return t.failed
	}
	t.asked++
	question := t.asked*7 + 3
	for name, channel := range t.members {
		fmt.Fprintf(channel, "%d\n", question)
		if err := channel.Flush(); err != nil {
			return fmt.Errorf("ask %s: %w", name, err)
		}
		line, err := channel.ReadString('\n')
		if err != nil {
			return fmt.Errorf("hear %s: %w", name, err)
		}
		if want := fmt.Sprintf("%d %d", question, t.asked); strings.TrimSpace(line) != want {
			return fmt.Errorf("%s says %q, not %q", name, line, want)
		}
	}
	if got := binary.NativeEndian.Uint64(t.shared); got != uint64(question) {
		return fmt.Errorf("shared memory holds %d, not %d", got, question)
	}
	for i, thread := range t.threads {
		thread <- question
		if got := <-thread; got != question+t.asked {
			return fmt.Errorf("thread %d says %d, not %d", i, got, question+t.asked)
		}
	}
	return nil
}

func (t *tree) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = errors.Join(t.failed, err)
}

// startThread runs a thread of its own that counts.
func startThread() chan int {
	c := make(chan int)
	go func() {
		runtime.LockOSThread()
		for n := 1; ; n++ {
			c <- <-c + n
		}
	}()
	return c
}

func (t *tree) startPipe(kind string) func() (io.ReadWriter, error) {
	return func() (io.ReadWriter, error) { return startPipe(kind) }
}

type duplex struct {
	io.Reader
	io.Writer
}

func startPipe(kind string) (io.ReadWriter, error) {
	cmd := command(kind)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return duplex{out, in}, cmd.Start()
}

func startPair() (io.ReadWriter, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "pair"), os.NewFile(uintptr(fds[1]), "pair")
	defer theirs.Close()
	cmd := command("echo")
	cmd.Stdin, cmd.Stdout = theirs, theirs
	return ours, cmd.Start()
}

func startNamed() (io.ReadWriter, error) {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: "/tmp/tree.sock", Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := command("dial").Start(); err != nil {
		return nil, err
	}
	// The listener stays open: a listening unix socket is restored with its name.
	return listener.AcceptUnix()
}

func startPty() (io.ReadWriter, error) {
	master, slavePath, err := console.NewPty()
	if err != nil {
		return nil, err
	}
	slave, err := os.OpenFile(slavePath, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer slave.Close()
	if err := master.SetRaw(); err != nil {
		return nil, err
	}
	cmd := command("echo")
	cmd.Stdin, cmd.Stdout = slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	return master, cmd.Start()
}

func command(kind string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{"member", kind}, args...)...)
	cmd.Stderr = os.Stderr
	return cmd
}

func mapShared() ([]byte, error) {
	file, err := os.OpenFile(sharedFile, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := file.Truncate(4096); err != nil {
		return nil, err
	}
	return syscall.Mmap(int(file.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
}

// member is a child of the tree, or of kinds.
func member(kind string, args ...string) error {
	var channel io.ReadWriter = duplex{os.Stdin, os.Stdout}
	note := func(string) (string, error) { return "", nil }
	switch kind {
	case "heir":
		n, err := strconv.ParseUint(args[0], 10, 64)
		if err != nil {
			return err
		}
		return heir(n)
	case "dial":
		conn, err := net.Dial("unix", "/tmp/tree.sock")
		if err != nil {
			return err
		}
		channel = conn
	case "shared":
		shared, err := mapShared()
		if err != nil {
			return err
		}
		note = func(question string) (string, error) {
			var n uint64
			_, err := fmt.Sscan(question, &n)
			binary.NativeEndian.PutUint64(shared, n)
			return "", err
		}
	case "scribe":
		note = scribeWrites()
	case "relay":
		next, err := startPipe("echo")
		if err != nil {
			return err
		}
		answers := bufio.NewReader(next)
		note = func(question string) (string, error) {
			fmt.Fprintln(next, question)
			return answers.ReadString('\n')
		}
	}
	lines := bufio.NewScanner(channel)
	for n := 1; lines.Scan(); n++ {
		answer, err := note(lines.Text())
		if err != nil {
			return err
		}
		if answer == "" {
			answer = fmt.Sprintf("%s %d\n", lines.Text(), n)
		}
		if _, err := io.WriteString(channel, answer); err != nil {
			return err
		}
	}
	return lines.Err()
}
