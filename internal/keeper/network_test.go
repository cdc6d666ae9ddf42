package keeper

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/netspace"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/runtime"
)

// testNetwork is what a keeper has made of a record, and written down.
func testNetwork(t *testing.T, hook string) *network {
	t.Helper()
	testutil.Root(t)
	dir, err := os.MkdirTemp("/run", "keeper-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	places := testPlaces(t)
	places.NetworkHook = hook
	record := &netspace.Record{Path: filepath.Join(dir, "netns", "web")}
	n := &network{
		Call: &netspace.Call{State: specs.State{ID: "web"}, Network: record}, Made: true, Hooked: true,
		places: places, mark: places.networkMark(testMove), log: slog.New(slog.DiscardHandler),
	}
	if err := n.write(); err != nil {
		t.Fatal(err)
	}
	space, err := netspace.Make(record)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netspace.Remove(record) })
	if err := space.Close(); err != nil { // its keeper is gone
		t.Fatal(err)
	}
	return n
}

// script is a hook that writes down its verbs, and ends with a status.
func script(t *testing.T, status string) (hook, verbs string) {
	t.Helper()
	hook, verbs = filepath.Join(t.TempDir(), "hook"), filepath.Join(t.TempDir(), "verbs")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\necho $1 >>"+verbs+"\nexit "+status+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return hook, verbs
}

// A move that cannot be ended has a source that stays frozen: whatever becomes of a hook, no process of the container is its.
func TestDiscardGoesOnWithoutItsHook(t *testing.T) {
	failing, _ := script(t, "1")
	for name, hook := range map[string]string{"it fails": failing, "it is gone": "/nowhere/hook", "none is set": ""} {
		t.Run(name, func(t *testing.T) {
			n := testNetwork(t, hook)
			h := &host{order: &PeerOrder{Places: n.places}, log: n.log}
			for range 2 {
				if err := h.Discard(t.Context(), journal.Move{Name: testMove, Container: "web"}); err != nil {
					t.Fatal(err)
				}
			}
			for _, path := range []string{n.mark, n.Call.Network.Path} {
				if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s: %v", path, err)
				}
			}
		})
	}
}

// Nobody has ended the move until an engine has made another namespace at the path, and the kernel has given the inode again.
func TestDiscardLeavesANamespaceThatIsAnothersByNow(t *testing.T) {
	for name, c := range map[string]struct{ cut, same, stays bool }{
		"another":        {cut: true, stays: true},
		"the inode anew": {same: true, stays: true},
		"what was made":  {cut: true, same: true},
	} {
		t.Run(name, func(t *testing.T) {
			n := testNetwork(t, "")
			n.Hooked = false
			ns, err := netspace.Open(n.Call.Network.Path)
			if err != nil {
				t.Fatal(err)
			}
			defer ns.Close()
			if n.Inode, err = netns.Inode(ns); err != nil {
				t.Fatal(err)
			}
			if !c.same {
				n.Inode++
			}
			if c.cut {
				err = netspace.Cut(ns)
			}
			if err := errors.Join(err, n.write()); err != nil {
				t.Fatal(err)
			}
			if err := discardNetwork(t.Context(), n.places, testMove, n.log); err != nil {
				t.Fatal(err)
			}
			if is, err := netns.IsAt(n.Call.Network.Path); is != c.stays || err != nil {
				t.Errorf("it is there: %t, %v", is, err)
			}
			if _, err := os.Stat(n.mark); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the mark: %v", err)
			}
		})
	}
}

func TestDiscardGoesOnWhateverIsAtThePath(t *testing.T) {
	n := testNetwork(t, "")
	if err := netspace.Remove(n.Call.Network); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.Call.Network.Path, []byte("another's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := discardNetwork(t.Context(), n.places, testMove, n.log); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(n.Call.Network.Path); err != nil {
		t.Error(err)
	}
	for _, mark := range []string{"", "{}", `{"call": {}}`} {
		if err := os.WriteFile(n.mark, []byte(mark), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := discardNetwork(t.Context(), n.places, testMove, n.log); err != nil {
			t.Errorf("%q: %v", mark, err)
		}
	}
}

// A container that runs here is connected, hook or not, and what failed is tried again.
func TestOpenConnectsWithoutItsHook(t *testing.T) {
	n := testNetwork(t, "")
	h := &host{order: &PeerOrder{Places: n.places}, log: n.log}
	state := &runtime.Container{}
	if err := h.connect(t.Context(), state, journal.Move{Name: testMove}); !errors.Is(err, errHook) {
		t.Errorf("without a hook: %v", err)
	}
	ns, err := netspace.Open(n.Call.Network.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if is, err := netspace.IsCut(ns); is || err != nil {
		t.Errorf("it is cut off: %t, %v", is, err)
	}
	hook, verbs := script(t, "0")
	h.order.NetworkHook = hook
	if err := h.connect(t.Context(), state, journal.Move{Name: testMove}); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(verbs); string(text) != "open\n" {
		t.Errorf("the hook was told %q", text)
	}
	if _, err := os.Stat(n.mark); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mark: %v", err)
	}
}

// The source's user is told what a container lacks at the peer.
func TestContainerWithoutAllOfItsNetworkIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(n *network) error
		cure  string
	}{
		"no hook":      {func(*network) error { return nil }, "hook's \"open\""},
		"no namespace": {func(n *network) error { return netspace.Remove(n.Call.Network) }, "migrate-cut"},
	} {
		t.Run(name, func(t *testing.T) {
			n := testNetwork(t, "")
			if err := c.spoil(n); err != nil {
				t.Fatal(err)
			}
			p := &place{host: &host{log: n.log}, prepared: &runtime.Prepared{}, network: n}
			p.connect(t.Context(), nil)
			lacks := p.Lacks()
			if len(lacks) != 1 || lacks[0].GetSeverity() != "warning" || !strings.Contains(lacks[0].GetCure(), c.cure) {
				t.Errorf("told are %v", lacks)
			}
		})
	}
}

// What an engine has put at the path since the offer is another container's, and stays connected.
func TestNamespaceThatIsAnothersByNowIsNotCutOff(t *testing.T) {
	testutil.Root(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	path := filepath.Join(t.TempDir(), "netns", "web")
	if err := netns.Bind(ns, "/", path[1:]); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = netns.Unbind(path) }()
	record := &netspace.Record{Path: path, Links: []netspace.Link{{
		Name: "eth0", Type: "veth", MAC: "02:00:00:00:00:01", MTU: 1500, Up: true, Addresses: []string{"10.9.8.7/24"}, Bridge: "none0",
	}}}
	places := testPlaces(t)
	p := &place{
		host: &host{order: &PeerOrder{Places: places}, log: slog.New(slog.DiscardHandler)}, hello: &wire.Hello{Move: testMove, Container: "web"},
		spec: &specs.Spec{}, identity: &identity{Namespace: record},
	}
	if _, err := p.makeNetwork(t.Context()); !errors.Is(err, wire.ErrIncompatible) {
		t.Errorf("it was taken: %v", err)
	}
	if _, err := netspace.Make(record); !errors.Is(err, netspace.ErrOther) {
		t.Errorf("it was made: %v", err)
	}
	if is, err := netspace.IsCut(ns); is || err != nil {
		t.Errorf("it is cut off: %t, %v", is, err)
	}
	if _, err := os.Stat(places.networkMark(testMove)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mark: %v", err)
	}
}

// A container in its host's network, named by a path as engines do, leaves that as it is.
func TestHookIsNotToldOfTheHostsOwnNetwork(t *testing.T) {
	testutil.Root(t)
	path := filepath.Join(t.TempDir(), "netns", "default")
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := netns.Bind(ns, "/", path[1:]); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = netns.Unbind(path) }()
	hook, verbs := script(t, "0")
	places := testPlaces(t)
	places.NetworkHook = hook
	c := &container{order: &Order{Places: places}}
	spec := &specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: path}}}}
	if err := c.leaveNetwork(t.Context(), &runtime.State{Plan: &runtime.Plan{Spec: spec}}); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(verbs); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the hook was told %q", text)
	}
}
