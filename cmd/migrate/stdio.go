package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/containerd/console"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/sys/socket"
)

// stdio connects a process in a container with the standard streams of this program: by pipes, so that the process can
// be checkpointed whatever ours are, or by a pty.
//
//  1. newStdio makes the ends that the process gets: Stdin, Stdout, Stderr, or Console.
//  2. The process is started with them. Its pty is taken over as soon as it arrives, before the program writes to it.
//  3. connect closes these ends here and begins to copy.
//  4. Close waits for the last output and gives our terminal back as it was.
type stdio struct {
	Stdin, Stdout, Stderr *os.File // the process's ends
	Console               *os.File // where the process sends the master of its pty

	in, out, err *os.File      // our ends of the pipes
	conn         *net.UnixConn // our end of Console
	ours         console.Console
	epoller      *console.Epoller
	master       *console.EpollConsole
	arrived      chan struct{} // closed when the pty is taken over, or arrivedErr says why not
	arrivedErr   error
	connected    bool
	copying      sync.WaitGroup
}

// newStdio gives pipes to uid and gid, the container's root on the host, which may open /dev/stdout anew.
func newStdio(terminal bool, uid, gid int) (_ *stdio, err error) {
	s := &stdio{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if terminal {
		if s.ours, err = ownTerminal(); err != nil {
			return nil, fmt.Errorf("use the terminal of the caller: %w", err)
		}
		if s.conn, s.Console, err = socket.Pair(); err != nil {
			return nil, err
		}
		s.arrived = make(chan struct{})
		go func() {
			defer close(s.arrived)
			s.arrivedErr = s.takeTerminal()
		}()
		return s, nil
	}
	if s.Stdin, s.in, err = os.Pipe(); err != nil {
		return nil, err
	}
	if s.out, s.Stdout, err = os.Pipe(); err != nil {
		return nil, err
	}
	if s.err, s.Stderr, err = os.Pipe(); err != nil {
		return nil, err
	}
	for _, end := range []*os.File{s.Stdin, s.Stdout, s.Stderr} {
		if err := errors.Join(end.Chown(uid, gid), descriptor.Block(end)); err != nil {
			return nil, fmt.Errorf("hand over standard streams: %w", err)
		}
	}
	return s, nil
}

// ownTerminal is the one that this program was started on, wherever its standard streams go.
func ownTerminal() (console.Console, error) {
	for _, f := range []*os.File{os.Stderr, os.Stdout, os.Stdin} {
		c, err := console.ConsoleFromFile(f)
		if err == nil || !errors.Is(err, console.ErrNotAConsole) {
			return c, err
		}
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return nil, err
	}
	return console.ConsoleFromFile(tty)
}

// connect is called when the process has its ends. Again it does nothing.
func (s *stdio) connect() error {
	if s.connected {
		return nil
	}
	s.connected = true
	s.closeEnds()
	if s.conn != nil {
		return s.connectTerminal()
	}
	go func() {
		_, _ = io.Copy(s.in, os.Stdin)
		s.in.Close()
	}()
	s.copy(os.Stdout, s.out)
	s.copy(os.Stderr, s.err)
	return nil
}

// takeTerminal receives the master of the process's pty and sets it up.
func (s *stdio) takeTerminal() error {
	file, _, err := descriptor.Receive(s.conn)
	if err != nil {
		return fmt.Errorf("receive the console's master: %w", err)
	}
	master, err := console.ConsoleFromFile(file)
	if err != nil {
		return err
	}
	// Our own terminal turns line feeds into carriage returns already.
	if err := console.ClearONLCR(master.Fd()); err != nil {
		return err
	}
	if s.epoller, err = console.NewEpoller(); err != nil {
		return err
	}
	if s.master, err = s.epoller.Add(master); err != nil {
		return err
	}
	s.resize()
	return nil
}

func (s *stdio) connectTerminal() error {
	<-s.arrived
	if s.arrivedErr != nil {
		return s.arrivedErr
	}
	go func() { _ = s.epoller.Wait() }()
	go func() { _, _ = io.Copy(s.master, os.Stdin) }()
	s.copy(os.Stdout, s.master)
	if err := s.ours.SetRaw(); err != nil {
		return fmt.Errorf("failed to set the terminal from the stdin: %w", err)
	}
	return nil
}

func (s *stdio) copy(to io.Writer, from io.Reader) {
	s.copying.Go(func() { _, _ = io.Copy(to, from) })
}

// resize gives the pty the size of our terminal. It may be gone: then there is nobody to see the difference.
func (s *stdio) resize() {
	if s.master != nil {
		_ = s.master.ResizeFrom(s.ours)
	}
}

func (s *stdio) closeEnds() {
	for _, f := range []*os.File{s.Stdin, s.Stdout, s.Stderr, s.Console} {
		if f != nil {
			f.Close()
		}
	}
	s.Stdin, s.Stdout, s.Stderr, s.Console = nil, nil, nil, nil
}

// Close is called when the process is gone, or was never started.
func (s *stdio) Close() {
	s.closeEnds()
	if s.conn != nil {
		s.conn.Close()
		<-s.arrived
	}
	if s.master != nil {
		_ = s.master.Shutdown(s.epoller.CloseConsole) // ends the copying once all is read
	}
	s.copying.Wait()
	if s.master != nil {
		_ = s.master.Close()
	}
	if s.ours != nil {
		_ = s.ours.Reset()
	}
	for _, f := range []*os.File{s.in, s.out, s.err} {
		if f != nil {
			f.Close()
		}
	}
}
