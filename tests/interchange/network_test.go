package interchange

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/restore"
	"github.com/livemigrate/migrate/runtime"
)

// bridge makes a bridge in the tests' network namespace, where the client of the tests is.
func (h *host) bridge(name, address string) {
	h.t.Helper()
	h.run("ip", "link", "add", name, "type", "bridge")
	h.t.Cleanup(func() { _ = exec.Command("ip", "link", "del", name).Run() })
	h.run("ip", "addr", "add", address, "dev", name)
	h.run("ip", "link", "set", name, "up")
}

// redisBundle is a bundle with this machine's redis server and the libraries it needs.
func (h *host) redisBundle(change func(*specs.Spec)) string {
	h.t.Helper()
	// The server and the checker are one program, which goes by its name; only the checker's comes with Debian's redis-tools.
	checker := testutil.Command(h.t, "redis-check-rdb")
	server := filepath.Join(filepath.Dir(checker), "redis-server")
	bundle := h.bundle("redis", change, server, "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--port", "6379")
	root := filepath.Join(bundle, "rootfs")
	h.install(root, checker)
	h.run("ln", "-s", filepath.Base(checker), filepath.Join(root, server))
	return bundle
}

// install copies a program and its libraries to the same paths below root.
func (h *host) install(root, program string) {
	h.t.Helper()
	paths := []string{program}
	for field := range strings.FieldsSeq(h.run("ldd", program)) {
		if strings.HasPrefix(field, "/") {
			paths = append(paths, field)
		}
	}
	for _, path := range paths {
		to := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			h.t.Fatal(err)
		}
		h.run("cp", "-L", path, to)
	}
}

// counter is one connection to a redis that is never opened again.
type counter struct {
	conn net.Conn
	in   *bufio.Reader
	last int
}

func dialCounter(t *testing.T, address string) *counter {
	t.Helper()
	var conn net.Conn
	eventually(t, "connecting to "+address, func() bool {
		var err error
		conn, err = net.DialTimeout("tcp", address, time.Second)
		return err == nil
	})
	t.Cleanup(func() { conn.Close() })
	c := &counter{conn: conn, in: bufio.NewReader(conn)}
	c.incr(t)
	return c
}

// incr must be answered with the next number.
func (c *counter) incr(t *testing.T) {
	t.Helper()
	if err := c.try(30 * time.Second); err != nil {
		t.Fatal(err)
	}
}

func (c *counter) try(patience time.Duration) error {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.conn.Write([]byte("INCR n\r\n")); err != nil {
		return err
	}
	return c.reply()
}

func (c *counter) reply() error {
	line, err := c.in.ReadString('\n')
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(line), ":"))
	if err != nil || n != c.last+1 {
		return fmt.Errorf("reply %q after %d", line, c.last)
	}
	c.last = n
	return nil
}

func network(bridge, address string) *runtime.Network {
	return &runtime.Network{Bridge: bridge, Addresses: []string{address}}
}

func TestClientOfARestoredRedisKeepsItsConnection(t *testing.T) {
	h := newHost(t)
	h.bridge("ixbr0", "10.79.0.1/24")
	bundle := h.redisBundle(nil)
	c := h.start("redis", bundle, network("ixbr0", "10.79.0.5/24"))
	client := dialCounter(t, "10.79.0.5:6379")
	pid := c.InitPid()
	if err := checkpoint.Run(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images("1"), TCPEstablished: true}); err != nil {
		t.Fatal(err)
	}
	reap(pid)
	if err := c.Delete(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	// A request that comes while nobody is there must be answered later, not reset.
	if _, err := client.conn.Write([]byte("INCR n\r\n")); err != nil {
		t.Fatal(err)
	}
	spec, err := runtime.LoadSpec(bundle)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := runtime.Parse(bundle, spec, &runtime.PlanOptions{Network: c.State().Network})
	if err != nil {
		t.Fatal(err)
	}
	again, err := restore.Run(t.Context(), h.rt, "redis", plan, nil, &restore.Options{ImagesDir: h.images("1"), TCPEstablished: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.reply(); err != nil {
		t.Fatal(err)
	}
	client.incr(t)
	if again.State().Network == nil {
		t.Error("the network is not in the restored container's state")
	}
}

func TestClientSurvivesARolledBackCheckpoint(t *testing.T) {
	h := newHost(t)
	h.bridge("ixbr1", "10.79.1.1/24")
	c := h.start("redis", h.redisBundle(nil), network("ixbr1", "10.79.1.5/24"))
	client := dialCounter(t, "10.79.1.5:6379")
	for _, end := range []string{"rollback", "leave running"} {
		held, err := checkpoint.Begin(t.Context(), c.Container, &checkpoint.Options{
			ImagesDir: h.images(end), TCPEstablished: true, LeaveRunning: end != "rollback",
		})
		if err != nil {
			t.Fatal(err)
		}
		// Nothing goes in or out meanwhile.
		if err := client.try(50 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a held container answered: %v", err)
		}
		if end == "rollback" {
			err = held.Rollback(t.Context())
		} else {
			err = held.Commit(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := client.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if err := client.reply(); err != nil {
			t.Fatalf("after %s: %v", end, err)
		}
		client.incr(t)
	}
}

func TestKilledCRIULeavesAFrozenContainerThatRecovers(t *testing.T) {
	h := newHost(t)
	h.bridge("ixbr2", "10.79.2.1/24")
	bundle := h.redisBundle(nil)
	t.Run("on a bridge of ours", func(t *testing.T) {
		h.killAndRecover(t, h.start("redis", bundle, network("ixbr2", "10.79.2.5/24")), "10.79.2.5:6379")
	})
	// There CRIU locks the network itself, and its rules stay.
	h.namespace("ix2", "ixbr2", "10.79.2.6/24")
	spec, err := runtime.LoadSpec(bundle)
	if err != nil {
		t.Fatal(err)
	}
	inNamespace("ix2")(spec)
	spec.Linux.CgroupsPath += "-2"
	h.writeSpec(bundle, spec)
	t.Run("in a namespace by path", func(t *testing.T) {
		h.killAndRecover(t, h.start("redis2", bundle, nil), "10.79.2.6:6379")
	})
}

func (h *host) killAndRecover(t *testing.T, c *container, address string) {
	t.Helper()
	client := dialCounter(t, address)
	held, err := checkpoint.Begin(t.Context(), c.Container, &checkpoint.Options{ImagesDir: h.images(c.ID()), TCPEstablished: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(held.CRIUPid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	if status, err := c.Status(); err != nil || status != runtime.Paused {
		t.Fatalf("status %v, %v: a killed CRIU lets the container run", status, err)
	}
	if err := client.try(50 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a held container answered: %v", err)
	}
	// Whoever finds it later does not have the Held.
	found, err := h.rt.Load(c.ID())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := checkpoint.Recover(context.Background(), found); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := client.reply(); err != nil {
		t.Fatal(err)
	}
	client.incr(t)
	if err := held.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	client.incr(t)
}

// namespace makes a network namespace on a bridge, as engines do: it is theirs, and stays.
func (h *host) namespace(name, bridge, address string) {
	h.t.Helper()
	h.run("ip", "netns", "add", name)
	h.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	h.run("ip", "link", "add", "v"+name, "type", "veth", "peer", "name", "eth0", "netns", name)
	h.run("ip", "link", "set", "v"+name, "up", "master", bridge)
	h.run("ip", "-n", name, "addr", "add", address, "dev", "eth0")
	h.run("ip", "-n", name, "link", "set", "eth0", "up")
}

// inNamespace is a container that joins a network namespace by path.
func inNamespace(name string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		for i := range s.Linux.Namespaces {
			if s.Linux.Namespaces[i].Type == specs.NetworkNamespace {
				s.Linux.Namespaces[i].Path = "/run/netns/" + name
			}
		}
	}
}
