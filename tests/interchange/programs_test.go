package interchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/restore"
	"github.com/livemigrate/migrate/runtime"
)

// cycle checkpoints the container, deletes it, and restores it from the images.
func (h *host) cycle(c *container, o checkpoint.Options, change func(*restore.Options)) *container {
	h.t.Helper()
	id, bundle, pid := c.ID(), c.Bundle(), c.InitPid()
	o.ImagesDir = h.images(id)
	if err := checkpoint.Run(h.t.Context(), c.Container, &o); err != nil {
		h.t.Fatal(err)
	}
	reap(pid)
	if err := c.Delete(h.t.Context(), false); err != nil {
		h.t.Fatal(err)
	}
	again, err := h.restore(id, bundle, h.images(id), func(r *restore.Options) {
		r.TCPEstablished = o.TCPEstablished
		r.FileLocks = o.FileLocks
		if change != nil {
			change(r)
		}
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return again
}

// busy is a program with what real ones have: see its source.
func (h *host) busy(bundle string) {
	h.t.Helper()
	out := filepath.Join(bundle, "rootfs/bin/busy")
	cmd := exec.Command("go", "build", "-o", out, "./testdata/busy")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%v: %s", err, text)
	}
}

func TestProcessTreeComesBackWhole(t *testing.T) {
	h := newHost(t)
	// CRIU cannot save MPTCP sockets, which Go listens on by default.
	bundle := h.bundle("b", func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "GODEBUG=multipathtcp=0") }, "busy")
	h.busy(bundle)
	c := h.start("busy", bundle, nil)
	c.expect(t, "round 2: all well\n")
	before, err := c.Processes()
	if err != nil {
		t.Fatal(err)
	}
	again := h.cycle(c, checkpoint.Options{TCPEstablished: true, FileLocks: true}, nil)
	text := again.expect(t, "all well\n")
	text += again.expect(t, "all well\n")
	if strings.Contains(text, "round 1:") || strings.Contains(text, "lost") {
		t.Errorf("output %q", text)
	}
	after, err := again.Processes()
	if err != nil || len(after) != len(before) {
		t.Errorf("%d processes, were %d, %v", len(after), len(before), err)
	}
}

func TestUserNamespaceComesBack(t *testing.T) {
	h := newHost(t)
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	bundle := h.bundle("b", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
	}, "sh", "-c", counting)
	h.run("chown", "-R", "200000:200000", filepath.Join(bundle, "rootfs"))
	c := h.start("user", bundle, nil)
	c.expect(t, "tick 3\n")
	again := h.cycle(c, checkpoint.Options{}, nil)
	again.goesOn(t)
	if got, want := h.run("stat", "-c", "%u %a", h.images("user")), "0 700\n"; got != want {
		t.Errorf("image directory %q after the restore, want %q", got, want)
	}
}

func TestUserNamespaceKeepsItsNetwork(t *testing.T) {
	h := newHost(t)
	h.bridge("ixbr3", "10.79.3.1/24")
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	bundle := h.redisBundle(func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
	})
	h.run("chown", "-R", "200000:200000", filepath.Join(bundle, "rootfs"))
	c := h.start("redis", bundle, network("ixbr3", "10.79.3.5/24"))
	client := dialCounter(t, "10.79.3.5:6379")
	again := h.cycle(c, checkpoint.Options{TCPEstablished: true}, nil)
	client.incr(t)
	again = h.cycle(again, checkpoint.Options{TCPEstablished: true}, nil)
	client.incr(t)
	if again.State().Network == nil {
		t.Error("the network is gone from the state")
	}
}

func TestTerminalComesBack(t *testing.T) {
	h := newHost(t)
	bundle := h.bundle("b", func(s *specs.Spec) { s.Process.Terminal = true }, "sh")
	c, master := h.startTerminal("tty", bundle)
	// What was typed and not read yet would be lost: CRIU does not save a terminal's input whose master is outside.
	talk(t, master, "a=be; a=${a}fore; echo got-$a\n", "got-before")
	var restored *os.File
	again := h.cycle(c, checkpoint.Options{}, func(o *restore.Options) {
		o.Console = func(_ context.Context, f *os.File) error { restored = f; return nil }
	})
	master.Close()
	if restored == nil {
		t.Fatal("no terminal's master came")
	}
	defer restored.Close()
	talk(t, restored, "echo $a-after\n", "before-after")
	if status, err := again.Status(); err != nil || status != runtime.Running {
		t.Errorf("%v, %v", status, err)
	}
}

// startTerminal runs a container whose terminal's master comes back.
func (h *host) startTerminal(id, bundle string) (*container, *os.File) {
	h.t.Helper()
	spec, err := runtime.LoadSpec(bundle)
	if err != nil {
		h.t.Fatal(err)
	}
	plan, err := runtime.Parse(bundle, spec, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	var c *runtime.Container
	master := h.console(func(socket string) {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			h.t.Fatal(err)
		}
		defer conn.Close()
		file, err := conn.File()
		if err != nil {
			h.t.Fatal(err)
		}
		defer file.Close()
		if c, err = h.rt.Create(h.t.Context(), id, plan, &runtime.CreateOptions{ConsoleSocket: file}); err != nil {
			h.t.Fatal(err)
		}
	})
	if err := c.Start(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	return &container{Container: c}, master
}

// console listens on a console socket while f runs, and returns the master that came.
func (h *host) console(f func(socket string)) *os.File {
	h.t.Helper()
	path := filepath.Join(h.dir, "console.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		h.t.Fatal(err)
	}
	defer listener.Close()
	f(path)
	if err := listener.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		h.t.Fatal(err)
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	master, _, err := descriptor.Receive(conn)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { master.Close() })
	return master
}

// talk writes to a terminal and waits for an answer.
func talk(t *testing.T, master *os.File, say, want string) {
	t.Helper()
	if _, err := io.WriteString(master, say); err != nil {
		t.Fatal(err)
	}
	heard := make(chan string, 1)
	go func() {
		var all strings.Builder
		buf := make([]byte, 4096)
		for !strings.Contains(all.String(), want) {
			n, err := master.Read(buf)
			all.Write(buf[:n])
			if err != nil {
				break
			}
		}
		heard <- all.String()
	}()
	select {
	case text := <-heard:
		if !strings.Contains(text, want) {
			t.Fatalf("heard %q, want %q", text, want)
		}
	case <-time.After(5 * time.Second):
		t.Fatalf("no %q comes from the terminal", want)
	}
}

func TestLeaveRunningTwiceAndRestoreTheSecond(t *testing.T) {
	h := newHost(t)
	bundle := h.bundle("b", nil, "sh", "-c", counting)
	c := h.start("twice", bundle, nil)
	c.expect(t, "tick 3\n")
	for range 2 { // into the same directory: the second replaces the first
		err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1"), LeaveRunning: true})
		if err != nil {
			t.Fatal(err)
		}
	}
	c.goesOn(t)
	if _, err := h.restore("twice", bundle, h.images("1"), nil); !errors.Is(err, runtime.ErrExists) {
		t.Errorf("restored beside the running one: %v", err)
	}
	if err := c.Delete(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	again, err := h.restore("twice", bundle, h.images("1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	again.goesOn(t)
}

func TestNamespacesOfOthersAreJoinedAgain(t *testing.T) {
	h := newHost(t)
	holder := exec.Command("unshare", "-i", "-u", "sh", "-c", "hostname theirs; echo ready; exec sleep 1000")
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = holder.Process.Kill(); _ = holder.Wait() })
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	theirs := func(kind string) string { return fmt.Sprintf("/proc/%d/ns/%s", holder.Process.Pid, kind) }
	bundle := h.bundle("b", func(s *specs.Spec) {
		s.Hostname = ""
		for i, ns := range s.Linux.Namespaces {
			if ns.Type == specs.IPCNamespace || ns.Type == specs.UTSNamespace {
				s.Linux.Namespaces[i].Path = theirs(string(ns.Type))
			}
		}
	}, "sh", "-c", counting)
	c := h.start("guest", bundle, nil)
	c.expect(t, "tick 3\n")
	again := h.cycle(c, checkpoint.Options{}, nil)
	again.goesOn(t)
	for _, kind := range []string{"ipc", "uts"} {
		want, err := os.Readlink(theirs(kind))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", again.InitPid(), kind)); err != nil || got != want {
			t.Errorf("%s namespace %s, theirs is %s, %v", kind, got, want, err)
		}
	}
}
