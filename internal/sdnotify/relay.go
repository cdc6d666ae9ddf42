// Package sdnotify hands what a container's program says by sd_notify(3) on to the service manager of the host.
//
// The program writes to a socket of ours, which is mounted into the container; the host's own would take messages from a
// pid that the service manager does not know, and would let the container say anything.
package sdnotify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// ErrTaken: somebody listens at that path already, who goes on undisturbed.
var ErrTaken = errors.New("the container's notify socket is taken: another start of it is under way")

// barrierTimeout is how long the service manager has to take note. Those before systemd 246 know no barrier.
const barrierTimeout = 30 * time.Second

// Relay is one container's way to the service manager. It has to be closed.
type Relay struct {
	inside *socket
	host   *manager
	log    *slog.Logger
	pid    int
	ready  chan struct{} // closed when the program is, and the service manager was told or could not be
	untold error         // why it could not, valid when ready is closed
	done   chan struct{} // closed when nothing is handed on any more
	err    error         // what became of the last message, valid when done is closed
}

// Listen makes the container's socket at path, for everybody in the container to write to, and connects to the host's,
// which may be an abstract one ("@name"). A socket of an earlier start is replaced, unless its Relay lives: ErrTaken.
// A nil log discards.
func Listen(path, host string, log *slog.Logger) (*Relay, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Relay{log: log, ready: make(chan struct{}), done: make(chan struct{})}
	var err error
	if r.host, err = connect(host); err != nil {
		return nil, fmt.Errorf("connect to the service manager: %w", err)
	}
	if r.inside, err = listen(path); err != nil {
		return nil, errors.Join(fmt.Errorf("make the container's notify socket: %w", err), r.host.Close())
	}
	return r, nil
}

// Start hands on from now on, until Close. pid is the service's main process, which the service manager is told together
// with its being ready.
func (r *Relay) Start(pid int) {
	r.pid = pid
	go func() {
		defer close(r.done)
		r.err = r.forward()
	}()
}

// forward reads on whatever becomes of the messages: a program whose socket is full would stand still.
func (r *Relay) forward() error {
	buf := make([]byte, 64<<10)
	var last error
	said, told := false, false
	for {
		n, err := r.inside.Read(buf)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return last // by Close
		}
		if err != nil {
			return fmt.Errorf("read what the container says: %w", err)
		}
		text := allowed(string(buf[:n]))
		if text == "" {
			continue
		}
		ready := slices.Contains(strings.Split(text, "\n"), "READY=1")
		if ready && !told {
			text += fmt.Sprintf("MAINPID=%d\n", r.pid)
		}
		if last = r.host.write(text); last != nil {
			last = fmt.Errorf("tell the service manager: %w", last)
			r.log.Warn("a message of the container is lost", "error", last)
		}
		if ready {
			told = told || last == nil
			if !said {
				said, r.untold = true, last
				close(r.ready)
			}
		}
	}
}

// allowed are the lines that are true outside as well. The others name pids of the container, or act on descriptors that
// are not handed on.
func allowed(message string) string {
	known := []string{
		"READY", "RELOADING", "MONOTONIC_USEC", "STOPPING", "STATUS", "ERRNO", "BUSERROR", "VARLINKERROR", "EXIT_STATUS", "WATCHDOG",
		"EXTEND_TIMEOUT_USEC",
	}
	var b strings.Builder
	for line := range strings.SplitSeq(message, "\n") {
		if key, _, ok := strings.Cut(line, "="); ok && slices.Contains(known, key) {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// AwaitReady returns when the program is ready and the service manager has taken note of it, or ctx ends.
func (r *Relay) AwaitReady(ctx context.Context) error {
	select {
	case <-r.ready:
		if r.untold != nil {
			return r.untold
		}
		return r.barrier(ctx)
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// barrier is that of sd_notify_barrier(3): the service manager closes the descriptor it gets when it has read what came
// before. It looks up the sender of a message by its pid, which is to be there as long.
func (r *Relay) barrier(ctx context.Context) error {
	ours, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("wait for the service manager: %w", err)
	}
	defer ours.Close()
	if err := errors.Join(r.host.send("BARRIER=1", theirs), theirs.Close()); err != nil {
		return fmt.Errorf("wait for the service manager: %w", err)
	}
	if err := ours.SetReadDeadline(time.Now().Add(barrierTimeout)); err != nil {
		return fmt.Errorf("wait for the service manager: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = ours.SetReadDeadline(time.Unix(1, 0)) })()
	_, _ = ours.Read(make([]byte, 1)) // its end, or the deadline: there is no more that could be done
	return ctx.Err()
}

// lastWords is how long Close reads on: what a program said just before it ended lies in the socket.
const lastWords = 50 * time.Millisecond

// Close ends it, and tells when the program's last message was lost. What the program says later is refused. A Relay that
// was never started is closed, too.
func (r *Relay) Close() error {
	var lost error
	if r.pid != 0 {
		if err := r.inside.SetReadDeadline(time.Now().Add(lastWords)); err == nil {
			<-r.done
			lost = r.err
		}
	}
	return errors.Join(lost, r.inside.Close(), r.host.Close())
}
