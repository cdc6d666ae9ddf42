package monitor

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/livemigrate/migrate/internal/sys/terminal"
)

// Attachment is a client's connection to the standard streams of a container. Receive and the others may be called by two
// goroutines.
type Attachment struct {
	Terminal bool // the container has a terminal
	Input    bool // the container takes input: it has a terminal, or its standard input is a pipe of the monitor's

	conn net.Conn
	read *bufio.Reader
}

// Event is one thing that an Attachment has to tell. One field is set.
type Event struct {
	Output []byte // of the container, as it is
	Missed uint64 // bytes of output that are left out here: this client reads too slowly. The log has them
	Exit   *Exit  // how it ended; Status -1 when nobody knows. Nothing comes after it
	Moved  string // the address of the host that it runs on now. Nothing comes after it
}

// Attach joins the container of stateDir: its output from now on comes here too. ErrNoMonitor when there is none. ctx is for
// the greeting only; the caller closes the Attachment, which leaves the container as it is.
func Attach(ctx context.Context, stateDir string) (*Attachment, error) {
	a, err := attach(ctx, stateDir)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	return a, nil
}

func attach(ctx context.Context, stateDir string) (_ *Attachment, err error) {
	conn, err := dial(ctx, stateDir)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	a := &Attachment{conn: conn, read: bufio.NewReaderSize(conn, bufferSize)}
	answer := response{}
	err = json.NewEncoder(conn).Encode(request{Version: controlVersion, Op: opAttach})
	if err == nil {
		var line []byte
		if line, err = a.read.ReadBytes('\n'); err == nil {
			err = json.Unmarshal(line, &answer)
		}
	}
	if err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	if err != nil {
		return nil, errors.Join(ctx.Err(), err, conn.Close())
	}
	a.Terminal, a.Input = answer.Terminal, answer.Input
	return a, nil
}

// Write brings input to the container. It waits while that takes none.
func (a *Attachment) Write(p []byte) (n int, err error) {
	for n < len(p) {
		part := p[n:min(len(p), n+maxFrame)]
		if err := (frame{frameInput, part}).writeTo(a.conn); err != nil {
			return n, fmt.Errorf("send input: %w", err)
		}
		n += len(part)
	}
	return n, nil
}

// Resize tells the size of the client's terminal, which the container's then has. The first call has the container draw its
// screen again.
func (a *Attachment) Resize(size terminal.Size) error {
	payload := binary.BigEndian.AppendUint16(nil, size.Rows)
	err := frame{frameSize, binary.BigEndian.AppendUint16(payload, size.Columns)}.writeTo(a.conn)
	if err != nil {
		return fmt.Errorf("send size of terminal: %w", err)
	}
	return nil
}

// Receive waits for the next event. io.EOF: the monitor has ended without a word.
func (a *Attachment) Receive() (*Event, error) {
	f, err := readFrame(a.read)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	if err != nil {
		return nil, err
	}
	switch f.kind {
	case frameOutput:
		return &Event{Output: f.payload}, nil
	case frameMoved:
		return &Event{Moved: string(f.payload)}, nil
	case frameMissed:
		if len(f.payload) == 8 {
			return &Event{Missed: binary.BigEndian.Uint64(f.payload)}, nil
		}
	case frameExit:
		e := &Exit{}
		if err := json.Unmarshal(f.payload, e); err != nil {
			return nil, fmt.Errorf("read exit status: %w", err)
		}
		return &Event{Exit: e}, nil
	}
	return nil, fmt.Errorf("the monitor sends a frame of kind %q that makes no sense", f.kind)
}

// Close detaches.
func (a *Attachment) Close() error { return a.conn.Close() }
