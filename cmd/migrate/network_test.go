package main

import (
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/testutil"
)

// TestNetworkJoinsTheBridge runs its commands in a network namespace that stands for the host's.
func TestNetworkJoinsTheBridge(t *testing.T) {
	testutil.Root(t)
	hostNS, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer hostNS.Close()
	inHost := func(f func() error) {
		t.Helper()
		if err := netns.Do(hostNS, f); err != nil {
			t.Fatal(err)
		}
	}
	inHost(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "br-test"
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		return netlink.LinkSetUp(bridge)
	})
	h := newContainerHost(t, forever)
	id := h.id("network")
	run := func(args ...string) (got result) {
		inHost(func() error {
			got = h.run(args...)
			return nil
		})
		return got
	}
	ports := func() (count int) {
		inHost(func() error {
			bridge, err := netlink.LinkByName("br-test")
			if err != nil {
				return err
			}
			links, err := netlink.LinkList()
			for _, l := range links {
				if l.Attrs().MasterIndex == bridge.Attrs().Index {
					count++
				}
			}
			return err
		})
		return count
	}
	const network = "bridge=br-test,address=10.77.0.2/24,gateway=10.77.0.1,mac=02:00:00:00:00:07,mtu=1400"
	if got := run("run", "-d", "--network", network, id); got.code != 0 {
		t.Fatal(got.stderr)
	}
	if ports() != 1 {
		t.Errorf("%d ports on the bridge", ports())
	}
	addr := run("exec", id, "ip", "addr", "show", "eth0").stdout
	for _, want := range []string{"10.77.0.2/24", "02:00:00:00:00:07", "mtu 1400", "UP"} {
		if !strings.Contains(addr, want) {
			t.Errorf("no %s in %s", want, addr)
		}
	}
	if route := run("exec", id, "ip", "route").stdout; !strings.Contains(route, "default via 10.77.0.1") {
		t.Errorf("routes are %s", route)
	}
	if stats := run("events", "--stats", id).stdout; !strings.Contains(stats, `"network_interfaces":[{"Name":"mg`) {
		t.Errorf("stats are %s", stats)
	}
	if got := run("delete", "--force", id); got.code != 0 {
		t.Error(got.stderr)
	}
	if ports() != 0 {
		t.Errorf("%d ports are left", ports())
	}
	got := run("run", "-d", "--network", "bridge=br-missing,address=10.77.0.2/24", id)
	if got.code != 1 || !strings.Contains(message(t, got.stderr), "ip link add br-missing type bridge") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	if left, _ := os.ReadDir(h.root); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
