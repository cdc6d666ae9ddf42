package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/livemigrate/migrate/internal/monitor"
	"github.com/livemigrate/migrate/internal/sys/pipe"
)

// hasPipe tells whether one of init's first three descriptors was a pipe when it was made. With a monitor standard input is
// one only if it is kept open.
func (c *container) hasPipe(fd int) bool { return c.pipeLabel(fd) != "" }

// pipeLabel is what /proc calls that pipe, "" when it is something else.
func (c *container) pipeLabel(fd int) string {
	if labels := c.State().ExternalDescriptors; fd < len(labels) && strings.HasPrefix(labels[fd], "pipe:") {
		return labels[fd]
	}
	return ""
}

// foreignStdio: an engine, or a command in the foreground, has the other ends. They stay behind on a move, and a monitor takes
// their place at the peer.
func (c *container) foreignStdio() bool {
	terminal := c.Spec().Process != nil && c.Spec().Process.Terminal
	return c.State().LogFile == "" && (terminal || c.hasPipe(0) || c.hasPipe(1) || c.hasPipe(2))
}

// Stdio has the monitor bring all output into the log: what is in a pipe would be lost with it. What is in pipes that nobody of
// ours reads goes along, and so does input that is still to be read.
func (c *container) Stdio(ctx context.Context) ([]byte, error) {
	var s stdio
	var err error
	foreign := c.foreignStdio()
	if c.State().LogFile != "" {
		s.LogOffset, err = monitor.Drain(ctx, c.StateDir())
		if errors.Is(err, monitor.ErrNoMonitor) { // it was killed
			foreign, err = true, nil
		}
		if err != nil {
			return nil, err
		}
	}
	input, err := c.peek(0)
	if err != nil {
		return nil, err
	}
	s.Input, s.InputEnded = input.Data, input.Ended
	if err := checkUnread(len(s.Input)); err != nil {
		return nil, err
	}
	if foreign {
		if s.Output, err = c.takeUnread(len(s.Input)); err != nil {
			return nil, err
		}
	}
	return json.Marshal(s)
}

const (
	// maxUnread is what a message takes, in base64: more than three pipes hold, unless they were made larger.
	maxUnread = 192 << 10
	// readerPatience is what a reader of a container's output gets to take the rest, inside the freeze.
	readerPatience = 20 * time.Millisecond
)

func checkUnread(n int) error {
	if n > maxUnread {
		return fmt.Errorf("%d bytes wait in its standard streams, more than %d: whoever has their other ends does not read them", n, maxUnread)
	}
	return nil
}

// takeUnread takes what waits in the container's output pipes. The container stands still, so a reader that is well is soon
// through; one that comes later finds nothing, because it would be in its log and in the peer's. input is what else is sent.
func (c *container) takeUnread(input int) ([]byte, error) {
	var waiting int
	for deadline := time.Now().Add(readerPatience); ; time.Sleep(time.Millisecond) {
		waiting = c.length(1)
		if c.pipeLabel(2) != c.pipeLabel(1) {
			waiting += c.length(2)
		}
		if waiting == 0 {
			return nil, nil
		}
		if !time.Now().Before(deadline) {
			break
		}
	}
	if err := checkUnread(waiting + input); err != nil {
		return nil, err
	}
	seen, err := c.seeUnread()
	if err == nil {
		err = seen.keep(c.StateDir()) // before: this process may be killed with what it has taken
	}
	if err != nil {
		return nil, err
	}
	taken := &unread{}
	err = taken.take(c.pipePath(1), &taken.Stdout)
	if c.pipeLabel(2) != c.pipeLabel(1) {
		err = errors.Join(err, taken.take(c.pipePath(2), &taken.Stderr))
	}
	if err == nil && !taken.equal(seen) { // the reader has come after all
		err = taken.keep(c.StateDir())
	}
	if err != nil {
		return nil, errors.Join(err, c.giveBack(taken))
	}
	return append(taken.Stdout, taken.Stderr...), nil
}

// seeUnread looks at what takeUnread takes.
func (c *container) seeUnread() (*unread, error) {
	out, err := c.peek(1)
	if err != nil {
		return nil, err
	}
	u := &unread{Stdout: out.Data}
	if c.pipeLabel(2) != c.pipeLabel(1) {
		if out, err = c.peek(2); err != nil {
			return nil, err
		}
		u.Stderr = out.Data
	}
	return u, nil
}

func (c *container) length(fd int) int {
	path := c.pipePath(fd)
	if path == "" {
		return 0
	}
	n, err := pipe.Length(path)
	if err != nil {
		return 1 // whoever takes it sees why
	}
	return n
}

// peek looks into one of the three. What is no pipe, or is closed everywhere, holds nothing.
func (c *container) peek(fd int) (*pipe.Waiting, error) {
	path := c.pipePath(fd)
	if path == "" {
		return &pipe.Waiting{}, nil
	}
	w, err := pipe.Peek(path)
	if errors.Is(err, os.ErrNotExist) {
		return &pipe.Waiting{}, nil
	}
	if err != nil {
		return &pipe.Waiting{}, fmt.Errorf("standard streams of %s: %w", c.ID(), err)
	}
	return w, nil
}

// pipePath leads to one of the three pipes through a process of the container that has it open: init, or else any.
func (c *container) pipePath(fd int) string {
	label := c.pipeLabel(fd)
	if label == "" {
		return ""
	}
	if path := fmt.Sprintf("/proc/%d/fd/%d", c.InitPid(), fd); isLink(path, label) {
		return path
	}
	pids, _ := c.Processes()
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd/"
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			if path := dir + entry.Name(); isLink(path, label) {
				return path
			}
		}
	}
	return ""
}

func isLink(path, to string) bool {
	target, err := os.Readlink(path)
	return err == nil && target == to
}

// SayMoved sends attached clients to the peer.
func (c *container) SayMoved(ctx context.Context) {
	c.tellMonitor(ctx, "attached clients do not know where it is", func(ctx context.Context, dir string) error {
		return monitor.Moved(ctx, dir, c.order.Peer)
	})
}

// hasMoved is called before the container here is killed: from then on what was taken of its output is at the peer alone.
func (c *container) hasMoved(ctx context.Context) {
	c.SayMoved(ctx)
	c.settle(movedOn)
	c.removeLinks(true)
	if err := forgetUnread(c.StateDir()); err != nil {
		c.log.Warn("output that has moved stays with the container's state", "error", err)
	}
}

// tellLimit bounds the wait for a monitor that is not well.
const tellLimit = time.Second

// holdInput keeps back what attached clients type. Until keepInput the end of this process gives it free: nobody would for a
// container that goes on.
func (c *container) holdInput(ctx context.Context) {
	c.tellMonitor(ctx, "what attached clients type while it stops is lost", func(ctx context.Context, dir string) (err error) {
		c.hold, err = monitor.HoldInput(ctx, dir)
		return err
	})
}

// keepInput is for a container that stands still: whoever decides where it goes on ends it.
func (c *container) keepInput() {
	if c.hold != nil {
		if err := c.hold.Keep(); err != nil {
			c.log.Warn("what attached clients type while it stands still may be lost", "error", err)
		}
		c.hold = nil
	}
}

// releaseInput is for a container that runs on here.
func (c *container) releaseInput() {
	if c.hold != nil {
		_ = c.hold.Close() // has released it already
		c.hold = nil
	}
	c.tellMonitor(context.Background(), "what attached clients type does not arrive", monitor.Release)
}

// tellMonitor is for what a move does not fail by. without says what comes of it then.
func (c *container) tellMonitor(ctx context.Context, without string, tell func(ctx context.Context, stateDir string) error) {
	if c.State().LogFile == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	if err := tell(ctx, c.StateDir()); err != nil && !errors.Is(err, monitor.ErrNoMonitor) {
		c.log.Warn(without, "error", err)
	}
}
