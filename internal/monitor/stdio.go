package monitor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/sys/pipe"
)

// Stdio is both sides of a container's standard streams.
type Stdio struct {
	// The container's ends, in blocking mode: nil with a terminal. Stdin is /dev/null, or a pipe when it is interactive;
	// Stdout and Stderr are one pipe, so that the order of what is written to them is kept. A process inherits them, or CRIU
	// gets them as inherit_fd.
	Stdin, Stdout, Stderr *os.File
	// ConsoleSocket is the path of the socket that takes the terminal's master by SCM_RIGHTS: empty without a terminal.
	ConsoleSocket string

	output  *os.File // the pipe's read end, or the master once it has arrived
	input   *os.File // the write end of standard input; nil unless it is a pipe
	console *net.UnixListener
}

// NewStdio makes pipes, or with a terminal the socket that its master is sent to. Standard input has no end when it is
// interactive, and is empty otherwise. The caller closes the Stdio, unless it becomes a monitor with it (Exec).
func NewStdio(terminal, interactive bool) (_ *Stdio, err error) {
	s := &Stdio{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make standard streams: %w", err), s.Close())
		}
	}()
	if terminal {
		err = s.listen()
		return s, err
	}
	if interactive {
		s.Stdin, s.input, err = os.Pipe()
	} else {
		s.Stdin, err = os.Open(os.DevNull)
	}
	if err != nil {
		return s, err
	}
	s.output, s.Stdout, err = os.Pipe()
	if err != nil {
		return s, err
	}
	s.Stderr = s.Stdout
	// Programs do not expect their standard streams to say "try again".
	err = descriptor.Block(s.Stdout)
	if err == nil && interactive {
		err = descriptor.Block(s.Stdin)
	}
	return s, err
}

// listen opens the console socket in a directory that nobody else can enter. The path is short: a socket's has 107 bytes.
func (s *Stdio) listen() error {
	dir, err := os.MkdirTemp("", "migrate-console-")
	if err != nil {
		return err
	}
	s.ConsoleSocket = filepath.Join(dir, "console.sock")
	s.console, err = net.ListenUnix("unix", &net.UnixAddr{Name: s.ConsoleSocket, Net: "unix"})
	return err
}

// Chown gives the pipes to the container's user, so that it can open /dev/stdout anew. The runtime does this for a process
// it starts; a restored one needs it from whoever restores it, before Fill.
func (s *Stdio) Chown(uid, gid int) error {
	if s.Stdout == nil {
		return nil
	}
	err := s.Stdout.Chown(uid, gid)
	if s.input != nil {
		err = errors.Join(err, s.Stdin.Chown(uid, gid))
	}
	if err != nil {
		return fmt.Errorf("give standard streams to the container's user: %w", err)
	}
	return nil
}

// Fill puts into the pipes what was in the container's before it came here: output that nobody has read, which comes first in
// the log, and input that it has not read itself. ended tells that no more input comes.
func (s *Stdio) Fill(output, input []byte, ended bool) error {
	var err error
	if s.Stdout != nil {
		err = pipe.Put(s.Stdout, output)
	}
	if s.input != nil {
		err = errors.Join(err, pipe.Put(s.input, input))
		if ended {
			err = errors.Join(err, s.input.Close())
			s.input = nil
		}
	}
	if err != nil {
		return fmt.Errorf("fill standard streams: %w", err)
	}
	return nil
}

// Output closes the container's ends here, now that the container has them, and returns the monitor's: the pipe's read
// end, or the terminal's master, which it receives from the console socket. It is closed with the Stdio.
func (s *Stdio) Output(ctx context.Context) (*os.File, error) {
	if s.console != nil {
		if err := s.receiveConsole(ctx); err != nil {
			return nil, fmt.Errorf("receive console: %w", err)
		}
	}
	return s.output, s.closeContainerEnds()
}

// TakeConsole takes the terminal's master, and its ownership, from a restore in this process: the console socket is not
// needed then.
func (s *Stdio) TakeConsole(_ context.Context, master *os.File) error {
	s.output = master
	return s.closeContainerEnds()
}

func (s *Stdio) receiveConsole(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.console.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := s.console.AcceptUnix()
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	defer conn.Close()
	stopConn := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stopConn()
	s.output, _, err = descriptor.Receive(conn)
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return nil
}

func (s *Stdio) closeContainerEnds() error {
	var errs []error
	if s.Stdout != nil {
		errs = append(errs, s.Stdin.Close(), s.Stdout.Close())
		s.Stdin, s.Stdout, s.Stderr = nil, nil, nil
	}
	if s.console != nil {
		errs = append(errs, s.console.Close())
		s.console = nil
	}
	if s.ConsoleSocket != "" {
		errs = append(errs, os.RemoveAll(filepath.Dir(s.ConsoleSocket)))
		s.ConsoleSocket = ""
	}
	return errors.Join(errs...)
}

// Close closes both sides. The container is cut off: its next write ends it by SIGPIPE.
func (s *Stdio) Close() error {
	err := s.closeContainerEnds()
	for _, end := range []**os.File{&s.output, &s.input} {
		if *end != nil {
			err = errors.Join(err, (*end).Close())
			*end = nil
		}
	}
	return err
}
