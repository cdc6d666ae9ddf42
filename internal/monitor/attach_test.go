package monitor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"

	"github.com/livemigrate/migrate/internal/monitor"
	"github.com/livemigrate/migrate/internal/sys/terminal"
)

// client is attached and reads until the end.
type client struct {
	*monitor.Attachment
	over chan struct{}

	mu     sync.Mutex
	text   strings.Builder
	missed uint64
	last   *monitor.Event // nil when there was none
}

func attach(t *testing.T, d *detached) *client {
	t.Helper()
	c := &client{Attachment: join(t, d), over: make(chan struct{})}
	go c.read()
	return c
}

func join(t *testing.T, d *detached) *monitor.Attachment {
	t.Helper()
	a, err := monitor.Attach(t.Context(), d.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func (c *client) read() {
	defer close(c.over)
	for {
		e, err := c.Receive()
		if err != nil {
			return
		}
		c.mu.Lock()
		c.text.Write(e.Output)
		c.missed += e.Missed
		if e.Exit != nil || e.Moved != "" {
			c.last = e
		}
		c.mu.Unlock()
	}
}

func (c *client) sees(t *testing.T, text string) {
	t.Helper()
	eventually(t, "a client sees "+text, func() bool { return strings.Contains(c.screen(), text) })
}

func (c *client) screen() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

func (c *client) end(t *testing.T) *monitor.Event {
	t.Helper()
	select {
	case <-c.over:
	case <-time.After(10 * time.Second):
		t.Fatal("the connection does not end")
	}
	if c.last == nil {
		t.Fatal("the connection ends without a word")
	}
	return c.last
}

func (c *client) write(t *testing.T, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestAttachedClientsSeeAndAreHeard(t *testing.T) {
	const script = `echo ready; while read line; do echo "got $line"; [ "$line" = end ] && exit 7; done`
	for _, way := range ways {
		for _, tty := range []bool{true, false} {
			t.Run(way+map[bool]string{true: "/terminal", false: "/pipe"}[tty], func(t *testing.T) {
				d := spawn(t, way, script, &monitor.Config{Terminal: tty, Interactive: !tty})
				d.waitLog(t, "ready")
				a, b := attach(t, d), attach(t, d)
				if a.Terminal != tty || !a.Input {
					t.Errorf("the client is told of terminal %v and input %v", a.Terminal, a.Input)
				}
				a.write(t, "one\n")
				a.sees(t, "got one")
				b.sees(t, "got one")
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
				b.write(t, "end\n")
				if e := b.end(t).Exit; e == nil || e.Status != 7 {
					t.Errorf("b is told of %+v", e)
				}
				d.waitEnd(t)
				if log := d.log(t); !strings.Contains(log, "got one") || !strings.Contains(log, "got end") {
					t.Errorf("the log is %q", log)
				}
				if _, err := monitor.Attach(t.Context(), d.StateDir); !errors.Is(err, monitor.ErrNoMonitor) {
					t.Errorf("after the end: %v", err)
				}
			})
		}
	}
}

func TestAttachToOutputAlone(t *testing.T) {
	d := spawn(t, "monitor", "read line || echo no input; sleep 60", &monitor.Config{})
	d.waitLog(t, "no input")
	a := attach(t, d)
	if a.Terminal || a.Input {
		t.Errorf("the client is told of terminal %v and input %v", a.Terminal, a.Input)
	}
	a.write(t, "this is for nobody\n")
	if err := syscall.Kill(-d.init, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := a.end(t).Exit; e == nil || e.Signal != int(syscall.SIGTERM) {
		t.Errorf("a is told of %+v", e)
	}
}

// A client that does not read costs the container nothing, and is told what it missed once it does.
func TestStuckClientMissesOutput(t *testing.T) {
	d := spawn(t, "monitor", "echo ready; read line; yes 0123456789 | head -c 5000000; echo over; read line", &monitor.Config{Interactive: true})
	d.waitLog(t, "ready")
	stuck, quick := join(t, d), attach(t, d)
	quick.write(t, "go\n")
	began := time.Now()
	eventually(t, "the log is complete", func() bool { return strings.HasSuffix(d.log(t), "over\n") })
	t.Logf("5 MB took %v", time.Since(began))
	slow := &client{Attachment: stuck, over: make(chan struct{})}
	go slow.read()
	quick.write(t, "end\n")
	slow.end(t)
	const all = 5_000_000 + len("over\n")
	if got := len(slow.screen()); slow.missed == 0 || got+int(slow.missed) != all || got > 1<<20 {
		t.Errorf("the stuck client got %d bytes, is told that it missed %d, of %d", got, slow.missed, all)
	}
	quick.end(t)
	if got := len(quick.screen()); got+int(quick.missed) != all {
		t.Errorf("the other client got %d bytes and missed %d, of %d", got, quick.missed, all)
	}
}

func TestSizeOfTheClientIsTheTerminals(t *testing.T) {
	d := spawn(t, "monitor", `trap 'echo "drawn $(stty size)"' WINCH; while :; do sleep 0.02; done`, &monitor.Config{Terminal: true})
	size := terminal.Size{Rows: 33, Columns: 77}
	for i := range 2 { // a second client of the same size wants to see the screen too
		a := attach(t, d)
		if err := a.Resize(size); err != nil {
			t.Fatal(err)
		}
		a.sees(t, "drawn 33 77")
		if i > 0 {
			if err := a.Resize(terminal.Size{Rows: 20, Columns: 40}); err != nil {
				t.Fatal(err)
			}
			a.sees(t, "drawn 20 40")
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMovedContainerSendsItsClientsAfterIt(t *testing.T) {
	d := spawn(t, "monitor", "echo ready; sleep 60", &monitor.Config{Terminal: true})
	d.waitLog(t, "ready")
	a := attach(t, d)
	if err := monitor.Moved(t.Context(), d.StateDir, "tls://b:7440"); err != nil {
		t.Fatal(err)
	}
	if e := a.end(t); e.Moved != "tls://b:7440" {
		t.Errorf("a is told %+v", e)
	}
	if _, err := monitor.Attach(t.Context(), d.StateDir); err == nil || !strings.Contains(err.Error(), "moved to another host") {
		t.Errorf("after the move: %v", err)
	}
	// The peer was lost before it had everything, and somebody has made the container run on here.
	if err := monitor.Release(t.Context(), d.StateDir); err != nil {
		t.Fatal(err)
	}
	again := attach(t, d)
	again.write(t, "hello")
	again.sees(t, "hello")
}

func TestHeldInputArrivesAfterTheRelease(t *testing.T) {
	for _, tty := range []bool{true, false} {
		d := spawn(t, "monitor", `echo ready; while read line; do echo "got $line"; done`, &monitor.Config{Terminal: tty, Interactive: !tty})
		d.waitLog(t, "ready")
		a := attach(t, d)
		for word, keep := range map[string]bool{"kept": true, "left": false} {
			h, err := monitor.HoldInput(t.Context(), d.StateDir)
			if err != nil {
				t.Fatal(err)
			}
			if keep {
				if err := h.Keep(); err != nil {
					t.Fatal(err)
				}
			}
			a.write(t, word+"\n")
			time.Sleep(100 * time.Millisecond)
			if text := a.screen(); strings.Contains(text, word) {
				t.Errorf("in between the client sees %q", text)
			}
			if keep {
				err = monitor.Release(t.Context(), d.StateDir)
			} else { // as when the process that holds it is killed
				err = h.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			a.sees(t, "got "+word)
		}
	}
}

// A container that always writes faster than its log takes it keeps nobody from its monitor.
func TestFloodKeepsNobodyOut(t *testing.T) {
	master, slow, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	go func() {
		for buffer := make([]byte, 4096); ; time.Sleep(time.Millisecond) {
			if _, err := master.Read(buffer); err != nil {
				return
			}
		}
	}()
	log := filepath.Join(t.TempDir(), "log")
	if err := os.Symlink(slow, log); err != nil {
		t.Fatal(err)
	}
	d := spawn(t, "monitor", "exec yes 0123456789", &monitor.Config{LogFile: log})
	pid, err := strconv.Atoi(d.stat(t)[2])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a, err := monitor.Attach(ctx, d.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := a.Receive(); err != nil || len(e.Output) == 0 {
		t.Errorf("the client receives %+v, %v", e, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := monitor.HoldInput(ctx, d.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(d.LogFile, d.LogFile+".1"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is a new log", func() bool { _, err := os.Stat(d.LogFile); return err == nil })
}

// A client that leaves while the container takes no input leaves nothing behind.
func TestClientGoesWhileItsInputWaits(t *testing.T) {
	d := spawn(t, "monitor", `echo ready; sleep 60`, &monitor.Config{Interactive: true})
	d.waitLog(t, "ready")
	for range 80 { // more than may be attached at once
		var a *monitor.Attachment
		eventually(t, "the place of the one before is free", func() bool {
			var err error
			a, err = monitor.Attach(t.Context(), d.StateDir)
			return err == nil
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = a.Write(make([]byte, 1<<20))
		}()
		time.Sleep(time.Millisecond)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		<-done
	}
}

func TestFramesThatMakeNoSense(t *testing.T) {
	d := spawn(t, "monitor", "echo ready; sleep 60", &monitor.Config{Terminal: true})
	d.waitLog(t, "ready")
	for _, text := range []string{"\xff\xff\xff\xff\xff", "s\x00\x00\x00\x01x", "?\x00\x00\x00\x00", "i"} {
		dir, err := os.Open(d.StateDir) // a socket's path has 107 bytes
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/monitor.sock", dir.Fd()))
		dir.Close()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, `{"version":1,"op":"attach"}`+"\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if _, err := monitor.Offset(t.Context(), d.StateDir); err != nil {
		t.Error(err)
	}
}
