package keeper

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/runtime"
)

// engine has the other ends of a container's output, and reads them when the test says so.
type engine struct {
	*Order
	outputs []*os.File // two, or one for both
	input   io.Closer  // its end lets the container write once more, and end
}

// newEngine starts what passes for a container's init: it writes size bytes to each output, and waits.
func newEngine(t *testing.T, outputs, size int) *engine {
	t.Helper()
	e := &engine{Order: &Order{Places: testPlaces(t), Container: "web"}}
	init := exec.Command(testutil.Command(t, "sh"), "-c", fmt.Sprintf(
		`head -c %d /dev/zero | tr '\0' o; head -c %d /dev/zero | tr '\0' e >&2; read -r line; printf after; printf AFTER >&2`, size, size))
	init.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	labels := []string{"/dev/null"}
	var writers []*os.File
	for range outputs {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer write.Close()
		t.Cleanup(func() { _ = read.Close() })
		label, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", write.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		e.outputs, writers, labels = append(e.outputs, read), append(writers, write), append(labels, label)
	}
	init.Stdout, init.Stderr = writers[0], writers[outputs-1]
	if outputs == 1 {
		labels = append(labels, labels[1])
	}
	in, err := init.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	e.input = in
	if err := init.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = init.Process.Kill(); _ = init.Wait() })
	start, err := process.StartTime(init.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	writeState(t, e.Places, func(s *runtime.State) {
		s.InitProcessPid, s.InitProcessStartTime, s.ExternalDescriptors = init.Process.Pid, start, labels
	})
	c := e.container(t)
	for deadline := time.Now().Add(10 * time.Second); c.length(1) < 2*size/outputs || c.length(2) < 2*size/outputs; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the container writes nothing")
		}
	}
	return e
}

// container is that of a keeper that begins now.
func (e *engine) container(t *testing.T) *container {
	t.Helper()
	c, err := remains(e.Order, testMove, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rest is all that the engine reads until the container has closed its outputs, one after the other.
func (e *engine) rest(t *testing.T) string {
	t.Helper()
	_ = e.input.Close()
	var all []byte
	for _, output := range e.outputs {
		data, err := io.ReadAll(output)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data...)
	}
	return string(all)
}

// Output that an engine had not read when the move began is in its pipes again when the move has failed, once, and before what
// comes then; also when the keeper that took it was killed. When the move went well it is the peer's.
func TestUnreadOutputIsPutBackWhenAMoveFails(t *testing.T) {
	const size = 30_000 // a pipe holds 64 KiB
	o, e := strings.Repeat("o", size), strings.Repeat("e", size)
	for _, c := range []struct {
		name    string
		outputs int
		end     func(t *testing.T, engine *engine, taker *container)
		want    string // that the engine reads
	}{
		{"two pipes", 2, func(_ *testing.T, _ *engine, taker *container) { taker.restoreOutput() }, o + "after" + e + "AFTER"},
		{"one pipe", 1, func(_ *testing.T, _ *engine, taker *container) { taker.restoreOutput() }, o + e + "afterAFTER"},
		{"another keeper", 2, func(t *testing.T, engine *engine, _ *container) { engine.container(t).restoreOutput() }, o + "after" + e + "AFTER"},
		{"two keepers", 1, func(t *testing.T, engine *engine, taker *container) {
			taker.restoreOutput()
			engine.container(t).restoreOutput()
		}, o + e + "afterAFTER"},
		{"moved", 2, func(t *testing.T, _ *engine, taker *container) { taker.hasMoved(t.Context()) }, "afterAFTER"},
	} {
		t.Run(c.name, func(t *testing.T) {
			engine := newEngine(t, c.outputs, size)
			taker := engine.container(t)
			data, err := taker.Stdio(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			taken, err := decode[stdio]("stdio", data)
			if err != nil || string(taken.Output) != o+e {
				t.Fatalf("%d bytes go to the peer, want %d, %v", len(taken.Output), 2*size, err)
			}
			if n := taker.length(1) + taker.length(2); n != 0 {
				t.Errorf("%d bytes are still in the pipes", n)
			}
			c.end(t, engine, taker)
			if got := engine.rest(t); got != c.want {
				t.Errorf("the engine reads %d bytes that end in %.20q, want %d", len(got), got[max(0, len(got)-20):], len(c.want))
			}
			if _, err := os.Stat(filepath.Join(taker.StateDir(), unreadName)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("what was taken stays with the state: %v", err)
			}
		})
	}
}

// A keeper that is killed has written down what it was about to take, and may have taken it from one pipe, or put it back there.
func TestUnreadOutputOfAKeeperThatWasKilledComesOnce(t *testing.T) {
	const size = 30_000
	o, e := strings.Repeat("o", size), strings.Repeat("e", size)
	for name, take := range map[string][]int{"before": nil, "half-way": {1}, "after": {1, 2}} {
		t.Run(name, func(t *testing.T) {
			engine := newEngine(t, 2, size)
			taker := engine.container(t)
			u, err := taker.seeUnread()
			if err == nil {
				err = u.keep(taker.StateDir())
			}
			for _, fd := range take {
				var data []byte
				err = errors.Join(err, u.take(taker.pipePath(fd), &data))
			}
			if err != nil {
				t.Fatal(err)
			}
			engine.container(t).restoreOutput()
			if got, want := engine.rest(t), o+"after"+e+"AFTER"; got != want {
				t.Errorf("the engine reads %d bytes, want %d", len(got), len(want))
			}
		})
	}
}

// What can't be written down is not taken.
func TestUnreadOutputStaysInItsPipeWhenItCannotBeKept(t *testing.T) {
	engine := newEngine(t, 2, 1000)
	taker := engine.container(t)
	if err := os.MkdirAll(filepath.Join(taker.StateDir(), unreadName, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := taker.takeUnread(0); err == nil {
		t.Error("taken")
	}
	if n := taker.length(1) + taker.length(2); n != 2000 {
		t.Errorf("%d bytes are in the pipes", n)
	}
}

// What does not fit into a message is refused, and stays where it is.
func TestTooMuchUnreadOutputStaysInItsPipe(t *testing.T) {
	engine := newEngine(t, 2, 1000)
	taker := engine.container(t)
	if _, err := taker.takeUnread(maxUnread - 1999); err == nil {
		t.Error("taken")
	}
	if got, want := engine.rest(t), strings.Repeat("o", 1000)+"after"+strings.Repeat("e", 1000)+"AFTER"; got != want {
		t.Errorf("the engine reads %q", got)
	}
}
