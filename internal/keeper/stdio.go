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
	unread := c.foreignStdio()
	if c.State().LogFile != "" {
		s.LogOffset, err = monitor.Drain(ctx, c.StateDir())
		if errors.Is(err, monitor.ErrNoMonitor) { // it was killed
			unread, err = true, nil
		}
		if err != nil {
			return nil, err
		}
	}
	if unread {
		if s.Output, err = c.unreadOutput(); err != nil {
			return nil, err
		}
	}
	input, err := c.peek(0)
	if err != nil {
		return nil, err
	}
	s.Input, s.InputEnded = input.Data, input.Ended
	if n := len(s.Output) + len(s.Input); n > maxUnread {
		return nil, fmt.Errorf("%d bytes wait in its standard streams, more than %d: whoever has their other ends does not read them", n, maxUnread)
	}
	return json.Marshal(s)
}

const (
	// maxUnread is what a message takes, in base64: more than three pipes hold, unless they were made larger.
	maxUnread = 192 << 10
	// readerPatience is what a reader of a container's output gets to take the rest, inside the freeze.
	readerPatience = 20 * time.Millisecond
)

// unreadOutput is what waits in the container's output pipes. The container stands still, so a reader that is well is soon
// through.
func (c *container) unreadOutput() ([]byte, error) {
	for deadline := time.Now().Add(readerPatience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if c.length(1) == 0 && c.length(2) == 0 {
			return nil, nil
		}
	}
	out, err := c.peek(1)
	if err != nil || c.pipeLabel(2) == c.pipeLabel(1) {
		return out.Data, err
	}
	other, err := c.peek(2)
	return append(out.Data, other.Data...), err
}

func (c *container) length(fd int) int {
	path := c.pipePath(fd)
	if path == "" {
		return 0
	}
	n, err := pipe.Length(path)
	if err != nil {
		return -1 // peek says why
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

// sayMoved is called before the container here is killed: its clients are sent to the peer, and what has gone there of its
// output is not read here again.
func (c *container) sayMoved(ctx context.Context) {
	if c.State().LogFile != "" {
		c.tellMonitor(ctx, func(ctx context.Context, dir string) error { return monitor.Moved(ctx, dir, c.order.Peer) })
		return
	}
	for _, fd := range []int{1, 2} {
		if path := c.pipePath(fd); path != "" {
			if err := pipe.Empty(path); err != nil {
				c.log.Warn("output of the container is both here and at the peer", "error", err)
			}
		}
	}
}

// tellLimit bounds the wait for a monitor that is not well.
const tellLimit = time.Second

// tellMonitor is for what clients should know: a move does not fail by it.
func (c *container) tellMonitor(ctx context.Context, tell func(ctx context.Context, stateDir string) error) {
	if c.State().LogFile == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	if err := tell(ctx, c.StateDir()); err != nil && !errors.Is(err, monitor.ErrNoMonitor) {
		c.log.Warn("attached clients are not told", "error", err)
	}
}
