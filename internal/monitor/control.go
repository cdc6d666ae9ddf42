package monitor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// The control socket is monitor.sock in the state directory. A client sends one request, a JSON object on one line; the
// monitor answers with one, and closes. "attach" goes on with frames after the answer.
//
//	-> {"version":1,"op":"drain"}
//	<- {"version":1,"offset":4711}     or {"version":1,"error":"..."}
//
// After the answer to "hold" the monitor waits for one more line, any, which makes the hold last. The end of the connection
// without it is its release.
const (
	controlVersion = 1
	controlName    = "monitor.sock"
	maxRequest     = 4096
	requestTimeout = 10 * time.Second

	opAttach  = "attach"
	opDrain   = "drain"
	opHold    = "hold"
	opMoved   = "moved"
	opOffset  = "offset"
	opRelease = "release"
)

type request struct {
	Version int    `json:"version"`
	Op      string `json:"op"`
	To      string `json:"to,omitempty"` // of moved
}

type response struct {
	Version  int    `json:"version"`
	Offset   int64  `json:"offset"`
	Terminal bool   `json:"terminal,omitempty"` // of attach: as in Attachment
	Input    bool   `json:"input,omitempty"`
	Error    string `json:"error,omitempty"`
}

// ErrNoMonitor: the container was started without one, or it has ended. Nothing of ours owns its standard streams.
var ErrNoMonitor = errors.New("container has no monitor")

// Drain has the monitor of the container of stateDir bring everything that the container has written so far into the log,
// and returns the offset behind it. With the container frozen that is all there is: nothing is left in a pipe to be lost
// with it. ErrNoMonitor when there is none.
func Drain(ctx context.Context, stateDir string) (offset int64, err error) {
	return ask(ctx, stateDir, request{Op: opDrain})
}

// Offset is how many bytes the container has written so far, as far as the monitor has read: on all hosts that it lived
// on, and with those that the log could not take. ErrNoMonitor when there is none.
func Offset(ctx context.Context, stateDir string) (offset int64, err error) {
	return ask(ctx, stateDir, request{Op: opOffset})
}

// Hold is the input of a container that is kept back.
type Hold struct{ conn net.Conn }

// HoldInput keeps back what attached clients type: the container is about to stop, and what it gets after it was looked at is
// lost with it. It ends with the Hold, or with the process that has it. ErrNoMonitor when there is none.
func HoldInput(ctx context.Context, stateDir string) (*Hold, error) {
	conn, err := dial(ctx, stateDir)
	if err != nil {
		return nil, fmt.Errorf("hold input: %w", err)
	}
	answer, err := talk(ctx, conn, request{Version: controlVersion, Op: opHold})
	if err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hold input: %w", err), conn.Close())
	}
	return &Hold{conn}, nil
}

// Keep ends the Hold and leaves the input kept back, until Release.
func (h *Hold) Keep() error {
	_, err := h.conn.Write([]byte("keep\n"))
	if err != nil {
		err = fmt.Errorf("keep input held: %w", err)
	}
	return errors.Join(err, h.conn.Close())
}

// Close releases the input.
func (h *Hold) Close() error { return h.conn.Close() }

// Release lets attached clients' input through, and clients in again after Moved: the container runs on here.
func Release(ctx context.Context, stateDir string) error {
	_, err := ask(ctx, stateDir, request{Op: opRelease})
	return err
}

// Moved tells attached clients on which host the container is now, and ends their connections. The container here must have
// been drained, and stands still until it is removed, or until Release. ErrNoMonitor when there is none.
func Moved(ctx context.Context, stateDir, to string) error {
	_, err := ask(ctx, stateDir, request{Op: opMoved, To: to})
	return err
}

func ask(ctx context.Context, stateDir string, r request) (int64, error) {
	r.Version = controlVersion
	answer, err := exchange(ctx, stateDir, r)
	if err != nil {
		return 0, fmt.Errorf("ask monitor to %s: %w", r.Op, err)
	}
	if answer.Error != "" {
		return 0, fmt.Errorf("ask monitor to %s: %s", r.Op, answer.Error)
	}
	return answer.Offset, nil
}

func exchange(ctx context.Context, stateDir string, r request) (answer response, err error) {
	conn, err := dial(ctx, stateDir)
	if err != nil {
		return answer, err
	}
	defer conn.Close()
	return talk(ctx, conn, r)
}

func talk(ctx context.Context, conn net.Conn, r request) (answer response, err error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err = json.NewEncoder(conn).Encode(r)
	if err == nil {
		err = json.NewDecoder(conn).Decode(&answer)
	}
	if err != nil {
		return answer, errors.Join(ctx.Err(), err)
	}
	return answer, nil
}

func dial(ctx context.Context, stateDir string) (net.Conn, error) {
	dir, err := os.Open(stateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoMonitor
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socketPath(dir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, ErrNoMonitor
	}
	return conn, err
}

// socketPath leads through the directory's descriptor, because a socket's path has 107 bytes and a state directory's may
// have more.
func socketPath(dir *os.File) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), controlName)
}

// listen opens the control socket for root, or the user of a rootless container, alone.
func listen(stateDir string) (*net.UnixListener, error) {
	dir, err := os.Open(stateDir)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	defer dir.Close()
	path := socketPath(dir)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a monitor that was killed
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	// The path will mean nothing, or something else, when the listener is closed.
	listener.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("open control socket: %w", err), listener.Close(), os.Remove(path))
	}
	return listener, nil
}

// unlisten undoes listen.
func unlisten(listener *net.UnixListener, stateDir string) error {
	return errors.Join(listener.Close(), os.Remove(filepath.Join(stateDir, controlName)))
}

func inheritListener(fd int) (*net.UnixListener, error) {
	file := os.NewFile(uintptr(fd), controlName)
	defer file.Close() // FileListener has its own
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	unix, ok := listener.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("open control socket: descriptor %d is another kind of socket", fd), listener.Close())
	}
	unix.SetUnlinkOnClose(false)
	return unix, nil
}

// control answers clients.
type control struct {
	listener *net.UnixListener
	output   *output
	audience *audience
}

// serve returns when the listener is closed.
func (c *control) serve() {
	for {
		conn, err := c.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, say: the container matters more than this client
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go c.handle(conn)
	}
}

func (c *control) handle(conn *net.UnixConn) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return
	}
	// A client says no more before the answer.
	line, err := bufio.NewReader(io.LimitReader(conn, maxRequest)).ReadBytes('\n')
	if err != nil {
		return
	}
	r, err := parseRequest(line)
	answer := response{Version: controlVersion}
	switch {
	case err != nil:
	case r.Op == opAttach:
		var g *guest
		if g, err = c.admit(conn); err == nil {
			c.audience.attend(g)
			return
		}
	case r.Op == opHold:
		c.hold(conn)
		return
	default:
		answer.Offset, err = c.perform(r)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	_ = json.NewEncoder(conn).Encode(answer) // the client sees it for itself
}

func parseRequest(line []byte) (r request, err error) {
	if err := json.Unmarshal(line, &r); err != nil {
		return r, fmt.Errorf("read request: %w", err)
	}
	if r.Version != controlVersion {
		return r, fmt.Errorf("the monitor speaks version %d, not %d", controlVersion, r.Version)
	}
	return r, nil
}

func (c *control) admit(conn *net.UnixConn) (*guest, error) {
	if c.output.source == nil {
		return nil, errors.New("the container has standard streams of its own")
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	in := c.audience.input
	return c.output.admit(conn, response{
		Version: controlVersion, Input: in != nil, Terminal: in != nil && in.terminal,
	})
}

func (c *control) perform(r request) (offset int64, err error) {
	in := c.audience.input
	switch r.Op {
	case opDrain:
		return c.output.drain()
	case opMoved:
		c.audience.dismiss(frame{frameMoved, []byte(r.To)})
	case opRelease:
		c.audience.stay()
		if in != nil {
			in.release()
		}
	case opOffset:
	default:
		return 0, fmt.Errorf("the monitor knows no %q", r.Op)
	}
	return c.output.position(), nil
}

// hold is one of a client that may end at any moment.
func (c *control) hold(conn *net.UnixConn) {
	in := c.audience.input
	if in != nil {
		in.hold()
	}
	err := json.NewEncoder(conn).Encode(response{Version: controlVersion, Offset: c.output.position()})
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if err != nil && in != nil {
		in.release()
	}
}

// close ends the service and removes the socket, which may be gone with its directory.
func (c *control) close(state *os.Root) error {
	err := c.listener.Close()
	if removeErr := state.Remove(controlName); !errors.Is(removeErr, fs.ErrNotExist) {
		err = errors.Join(err, removeErr)
	}
	return err
}
