package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// sockets is one of each kind, with data on the way at every moment: what is read must be the oldest that was written.
type sockets struct {
	mu       sync.Mutex
	pairs    []*pair
	names    map[string]string // of the host, and who knows it
	udp      *net.UDPConn      // connected; nil without an address
	sent     int
	listener net.Listener // whose connections wait until they are asked for
	accepted int
}

// pair are two sockets that are connected with each other.
type pair struct {
	kind          string
	from, to      net.Conn
	written, read int
}

// inFlight is how many messages are in a pair whenever it is not looked at.
const inFlight = 3

// waitingPort is where connections wait.
const waitingPort = port + 1

// startSockets makes them. args may be an address, to which datagrams are sent that somebody there sends back.
func startSockets(args []string) (*sockets, error) {
	s := &sockets{}
	for kind, number := range map[string]int{"unix stream": syscall.SOCK_STREAM, "unix datagram": syscall.SOCK_DGRAM, "unix seqpacket": syscall.SOCK_SEQPACKET} {
		ends, err := syscall.Socketpair(syscall.AF_UNIX, number|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		from, err := socketConn(ends[0])
		if err != nil {
			return nil, err
		}
		to, err := socketConn(ends[1])
		if err != nil {
			return nil, err
		}
		s.pairs = append(s.pairs, &pair{kind: kind, from: from, to: to})
	}
	loop, err := loopback()
	if err != nil {
		return nil, err
	}
	s.pairs = append(s.pairs, loop)
	for _, p := range s.pairs {
		for range inFlight {
			if err := p.write(); err != nil {
				return nil, err
			}
		}
	}
	if s.listener, err = listen(":" + strconv.Itoa(waitingPort)); err != nil {
		return nil, err
	}
	if len(args) > 0 {
		to, err := net.ResolveUDPAddr("udp", args[0])
		if err != nil {
			return nil, err
		}
		if s.udp, err = net.DialUDP("udp", nil, to); err != nil {
			return nil, err
		}
	}
	s.names, err = hostNames()
	return s, err
}

func socketConn(fd int) (net.Conn, error) {
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close()
	return net.FileConn(file)
}

// loopback is a TCP connection with itself.
func loopback() (*pair, error) {
	l, err := listen("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	from, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	to, err := l.Accept()
	return &pair{kind: "tcp over the loopback", from: from, to: to}, err
}

// listen does without MPTCP, which Go uses where the kernel has it, and which CRIU does not dump.
func listen(address string) (net.Listener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	return config.Listen(context.Background(), "tcp", address)
}

// messageSize is the same for all, so that a stream has no need of bounds.
const messageSize = 8

func (p *pair) write() error {
	p.written++
	_, err := fmt.Fprintf(p.from, "%0*d", messageSize, p.written)
	return err
}

func (p *pair) check() error {
	if err := p.write(); err != nil {
		return fmt.Errorf("%s: %w", p.kind, err)
	}
	message := make([]byte, messageSize)
	if err := p.to.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	n, err := p.to.Read(message)
	p.read++
	if err != nil {
		return fmt.Errorf("%s: read message %d: %w", p.kind, p.read, err)
	}
	if string(message[:n]) != fmt.Sprintf("%0*d", messageSize, p.read) {
		return fmt.Errorf("%s: message %d is %q", p.kind, p.read, message[:n])
	}
	return nil
}

// hostNames are what others and itself know the host by.
func hostNames() (map[string]string, error) {
	host, err := os.Hostname()
	found := map[string]string{"hostname": host}
	for _, path := range []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} {
		text, e := os.ReadFile(path)
		if e != nil && !errors.Is(e, os.ErrNotExist) {
			err = e
		}
		found[path] = string(text)
	}
	return found, err
}

func (s *sockets) check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pairs {
		if err := p.check(); err != nil {
			return err
		}
	}
	now, err := hostNames()
	if err != nil {
		return err
	}
	for what, is := range now {
		if is != s.names[what] {
			return fmt.Errorf("%s is %q, was %q", what, is, s.names[what])
		}
	}
	return s.checkUDP()
}

// checkUDP sends until something comes back: a datagram may be lost.
func (s *sockets) checkUDP() error {
	if s.udp == nil {
		return nil
	}
	const tries = 20
	var err error
	for range tries {
		s.sent++
		if _, err = fmt.Fprintf(s.udp, "%d", s.sent); err != nil {
			return fmt.Errorf("connected udp: %w", err)
		}
		answer := make([]byte, messageSize)
		if err := s.udp.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return err
		}
		if _, err = s.udp.Read(answer); err == nil {
			return nil
		}
	}
	return fmt.Errorf("connected udp: %w", err)
}

// write takes one of the connections that wait, and sends back what is read from it.
func (s *sockets) write() (int, error) {
	if err := s.listener.(*net.TCPListener).SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return 0, err
	}
	conn, err := s.listener.Accept()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return 0, err
	}
	said := make([]byte, 64)
	n, err := conn.Read(said)
	if err == nil {
		_, err = conn.Write(said[:n])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted++
	return s.accepted, err
}
