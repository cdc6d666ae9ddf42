package keeper

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/sys/socket"
)

// ErrKeeperGone: the process that held the move ended without a word. The journal knows how far it came: resolve it.
var ErrKeeperGone = errors.New("the move's process is gone")

// lineFD is the descriptor that a keeper finds its line to whoever started it at.
const lineFD = 3

// Line is push's end of the connection with the keeper it started.
type Line struct {
	conn   *net.UnixConn
	events *json.Decoder
	child  *exec.Cmd
}

// Start starts a keeper for the order: program run with args, in a session of its own, so that neither a signal from the
// terminal nor its end reaches it. The caller reads the events until the result and closes the line.
func Start(program string, args []string, o *Order) (*Line, error) {
	o.Move = newMove()
	conn, theirs, err := socket.Pair()
	if err != nil {
		return nil, fmt.Errorf("start keeper: %w", err)
	}
	child, err := detach(program, args, theirs)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	line := &Line{conn: conn, events: json.NewDecoder(bufio.NewReader(conn)), child: child}
	if err := json.NewEncoder(conn).Encode(o); err != nil {
		return nil, errors.Join(fmt.Errorf("start keeper: %w", err), line.Close())
	}
	return line, nil
}

// detach starts program with its end of a line as descriptor lineFD, and closes that end here.
func detach(program string, args []string, theirs *os.File) (*exec.Cmd, error) {
	child := exec.Command(program, args...) //nolint:noctx // it outlives whoever starts it, and every context here
	child.ExtraFiles = []*os.File{theirs}
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	child.Dir = "/"
	err := child.Start()
	if err := errors.Join(err, theirs.Close()); err != nil {
		return nil, fmt.Errorf("start keeper: %w", err)
	}
	return child, nil
}

// Next returns the next event. ErrKeeperGone when the keeper ended before its result.
func (l *Line) Next() (report.Event, error) {
	var e report.Event
	err := l.events.Decode(&e)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		_ = l.child.Wait() // so that its locks are gone too
		return e, ErrKeeperGone
	}
	if err != nil {
		return e, fmt.Errorf("read event: %w", err)
	}
	return e, nil
}

// Cancel asks the keeper to call the move off. After COMMIT it has no effect.
func (l *Line) Cancel() error {
	return l.conn.CloseWrite()
}

// Close hangs up. The keeper is reaped if it has ended; otherwise it goes on.
func (l *Line) Close() error {
	err := l.conn.Close()
	go func() { _ = l.child.Wait() }() // it may outlive us: then its new parent reaps it
	return err
}

// ready tells whoever started this keeper that it listens, or why it does not.
func ready(line io.Writer, failure error) error {
	text := "ready\n"
	if failure != nil {
		text = strings.ReplaceAll(failure.Error(), "\n", " ") + "\n"
	}
	_, err := io.WriteString(line, text)
	return err
}

// awaitReady is the other end of ready.
func awaitReady(line io.Reader) error {
	text, err := bufio.NewReader(line).ReadString('\n')
	switch {
	case err != nil:
		return fmt.Errorf("start keeper: it ended at once: %w", err)
	case text != "ready\n":
		return fmt.Errorf("start keeper: %s", strings.TrimSpace(text))
	}
	return nil
}
