package interchange

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/runtime"
)

// The socket's directory is a mount that no config names, from a state directory that is another after a restore.
func TestServiceComesBackWithItsNotifySocket(t *testing.T) {
	h := newHost(t)
	bundle := h.bundle("b", nil, "sh", "-c", `i=0; while :; do i=$((i+1)); test -d ${NOTIFY_SOCKET%/*} && echo tick $i; sleep 0.05; done`)
	c := h.create("service", bundle, nil, &runtime.CreateOptions{Notify: true})
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.expect(t, "tick 3\n")
	if text, err := os.ReadFile(filepath.Join(c.StateDir(), "state.json")); err != nil || strings.Contains(string(text), "/run/notify") {
		t.Errorf("the mount is kept as one of its user's (%v): a move would treat it so", err)
	}
	for _, images := range []string{"1", "2"} {
		pid := c.InitPid()
		if err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images(images)}); err != nil {
			t.Fatal(err)
		}
		reap(pid)
		if err := c.Delete(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		var err error
		if c, err = h.restore("service", bundle, h.images(images), nil); err != nil {
			t.Fatal(err)
		}
		c.goesOn(t)
		if want := filepath.Join(c.StateDir(), "notify/notify.sock"); c.NotifySocket() != want {
			t.Errorf("its socket is at %q, want %q", c.NotifySocket(), want)
		}
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: c.NotifySocket(), Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		inside := filepath.Join("/proc", strconv.Itoa(c.InitPid()), "root/run/notify/notify.sock")
		if _, err := os.Stat(inside); err != nil {
			t.Errorf("the container does not see its socket: %v", err)
		}
		conn.Close()
	}
}

// CRIU would dump it, and stop it, and fail at the restore.
func TestContainerWithADeviceOfTheHostIsRefusedBeforeItStops(t *testing.T) {
	h := newHost(t)
	h.run("ip", "link", "add", "dev-refused", "type", "veth", "peer", "name", "dev-refused2")
	t.Cleanup(func() { h.run("ip", "link", "del", "dev-refused2") })
	c := h.start("device", h.bundle("b", func(s *specs.Spec) {
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"dev-refused": {}}
	}, "sh", "-c", counting), nil)
	c.expect(t, "tick 3\n")
	err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1")})
	if !errors.Is(err, checkpoint.ErrUnrestorable) || !strings.Contains(err.Error(), "linux.netDevices") {
		t.Errorf("checkpoint: %v", err)
	}
	c.goesOn(t)
	if err := checkpoint.Check(c.Container, &checkpoint.Options{EmptyNetwork: true}); err != nil {
		t.Errorf("without the network's content: %v", err)
	}
}

// CRIU cannot dump the runtime, which init is until its hooks are over.
func TestCheckpointWaitsForTheProgramAndSaysSo(t *testing.T) {
	for _, tt := range []struct{ name, hook, want string }{
		{"quick hook", "sleep 0.5", ""},
		{"slow hook", "sleep 4", "its program does not run yet"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			c := h.create("hooked", h.bundle("b", func(s *specs.Spec) {
				s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "/bin/" + tt.hook}}}}
			}, "sh", "-c", counting), nil, &runtime.CreateOptions{})
			started := make(chan error, 1)
			go func() { started <- c.Start(t.Context()) }()
			eventually(t, "running", func() bool {
				status, err := c.Status()
				return err == nil && status == runtime.Running
			})
			err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1"), LeaveRunning: true})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("checkpoint: %v", err)
			}
			if err := <-started; err != nil {
				t.Error(err)
			}
			c.expect(t, "tick 3\n")
		})
	}
}

// A name is nothing that a program could not give itself.
func TestProgramWithTheNameOfInitIsCheckpointed(t *testing.T) {
	h := newHost(t)
	c := h.start("named", h.bundle("b", nil, "sh", "-c", "printf "+runtime.InitName+" > /proc/$$/comm; "+counting), nil)
	c.expect(t, "tick 3\n")
	held, err := checkpoint.Begin(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1")})
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.goesOn(t)
}
