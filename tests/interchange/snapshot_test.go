package interchange

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/internal/image"
)

// stories collects what a checkpoint tells.
type stories struct {
	mu    sync.Mutex
	texts strings.Builder
}

func (s *stories) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.texts.Write(text)
}

func (s *stories) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(s, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// told finds the line about a snapshot.
func (s *stories) told(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(s.texts.String()) {
		if strings.Contains(line, "the container runs on") {
			t.Log(strings.TrimSpace(line[strings.Index(line, "msg="):]))
			return
		}
	}
	t.Errorf("its memory was not copied while it ran: %s", s.texts.String())
}

// workload is a bundle of tests/workload in a network namespace of its own, which outlives the container.
func (h *host) workload(name, address string, args ...string) (bundle string) {
	h.t.Helper()
	h.bridge("br"+name, strings.TrimSuffix(address, "5")+"1/24")
	h.namespace(name, "br"+name, address+"/24")
	h.t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "v"+name).Run() }) // a namespace takes its time to end
	bundle = h.bundle("b", byID(inNamespace(name)), append([]string{"workload"}, args...)...)
	cmd := exec.Command("go", "build", "-o", filepath.Join(bundle, "rootfs/bin/workload"), "../workload")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%v: %s", err, text)
	}
	if err := os.Mkdir(filepath.Join(bundle, "rootfs/data"), 0o777); err != nil {
		h.t.Fatal(err)
	}
	return bundle
}

// unharmed asks the workload, which looks at all of its memory.
func unharmed(t *testing.T, address string) {
	t.Helper()
	var conn net.Conn
	eventually(t, "connecting to "+address, func() bool {
		var err error
		conn, err = net.DialTimeout("tcp", address+":7000", time.Second)
		return err == nil
	})
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for n := range 3 {
		if _, err := fmt.Fprintln(conn, "check"); err != nil {
			t.Fatal(err)
		}
		if line, err := in.ReadString('\n'); err != nil || line != fmt.Sprintf("ok %d\n", n+1) {
			t.Fatalf("%q, %v", line, err)
		}
	}
}

// A job that writes all the time is saved twice while it runs on; what was saved is what runc and we restore.
func TestSnapshotOfABusyJobIsExact(t *testing.T) {
	for i, job := range []struct {
		name string
		args []string
	}{
		// A file of the root goes on changing after the first snapshot, and is in none.
		{"every kind of memory", []string{"kinds", "--megabytes", "2", "--without", "shared file"}},
		{"much memory", []string{"memory", "--rate", "10000", "128"}},
	} {
		t.Run(job.name, func(t *testing.T) {
			h := newHost(t)
			r := newRunc(h)
			address := fmt.Sprintf("10.79.%d.5", 6+i)
			bundle := h.workload(fmt.Sprintf("ixsn%d", i), address, job.args...)
			c := h.start(h.unique("job"), bundle, nil)
			unharmed(t, address)
			for _, images := range []string{h.images("1"), h.images("2")} {
				var s stories
				err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{
					ImagesDir: images, LeaveRunning: true, TCPEstablished: true, LinkRemap: true, Log: s.log(),
				})
				if err != nil {
					t.Fatal(err)
				}
				s.told(t)
				unharmed(t, address)
				verify(t, images)
			}
			if err := c.Delete(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			reap(c.State().InitProcessPid)
			r.detached(h.unique("theirs"), "restore", "-d", "--tcp-established", "--image-path", h.images("1"), "--bundle", bundle)
			unharmed(t, address)
			r.do("delete", "-f", h.unique("theirs"))
			if _, err := h.restore(h.unique("ours"), bundle, h.images("2"), nil); err != nil {
				t.Fatal(err)
			}
			unharmed(t, address)
		})
	}
}

// verify holds a whole set against its manifest.
func verify(t *testing.T, images string) {
	t.Helper()
	if err := image.CheckResolved(images); err != nil {
		t.Error(err)
	}
	set, err := image.Open(images)
	if err == nil {
		err = set.VerifyPages(t.Context())
	}
	if err != nil || set.Manifest == nil {
		t.Errorf("%v, %v", set, err)
	}
}

// A snapshot that fails leaves a job that runs on, and nothing that could be taken for a checkpoint.
func TestJobRunsOnAfterASnapshotThatFailed(t *testing.T) {
	fill := func(images string) error {
		return os.WriteFile(filepath.Join(images, "filler"), make([]byte, 160<<20), 0o600)
	}
	failures := []struct {
		name string
		size string // of the file system
		hook func(images string, cancel func()) error
		want error
	}{
		{"room is short", "16m", nil, checkpoint.ErrNoRoom},
		{"room ends in the freeze", "160m", func(images string, _ func()) error {
			if err := fill(images); !errors.Is(err, syscall.ENOSPC) {
				return fmt.Errorf("there was room: %w", err)
			}
			return nil
		}, nil},
		{"cancelled in the freeze", "256m", func(_ string, cancel func()) error { cancel(); return nil }, context.Canceled},
	}
	h := newHost(t)
	c := h.start("fails", h.memories(nil), nil)
	c.expect(t, "tick 3\n")
	for _, f := range failures {
		t.Run(f.name, func(t *testing.T) {
			images := filepath.Join(h.dir, strings.ReplaceAll(f.name, " ", "-"))
			if err := os.Mkdir(images, 0o700); err != nil {
				t.Fatal(err)
			}
			h.run("mount", "-t", "tmpfs", "-o", "size="+f.size, "tmpfs", images)
			defer h.run("umount", images)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o := &checkpoint.Options{ImagesDir: images, LeaveRunning: true}
			if f.hook != nil {
				o.AfterFreeze = func(context.Context) error { return f.hook(images, cancel) }
			}
			err := checkpoint.Run(ctx, c.Container, o)
			if err == nil || f.want != nil && !errors.Is(err, f.want) {
				t.Errorf("%v", err)
			}
			t.Log(err)
			c.goesOn(t)
			if _, err := image.Open(images); !errors.Is(err, image.ErrNoCheckpoint) {
				t.Errorf("what is left says %v", err)
			}
		})
	}
	if err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1"), LeaveRunning: true}); err != nil {
		t.Error(err)
	}
	c.goesOn(t)
}
