package link

import (
	"bytes"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/livemigrate/migrate/internal/sys/netns"
)

const (
	address4, address6 = "10.9.0.5", "fd09::5"
	port               = "7000"
)

func containerConfig() *Config {
	return &Config{Bridge: "br0", Addresses: []string{address4 + "/24", address6 + "/64"}, Gateways: []string{"10.9.0.1", "fe80::1"}}
}

func TestJoinedContainerIsReachedAndLeaveCutsIt(t *testing.T) {
	wire := newSwitch(t)
	host := wire.newHost(t, "a")
	client := wire.newClient(t)
	container := newNamespace(t)
	l := mustAttach(t, host, container, containerConfig())
	echo(t, container)

	unreachable(t, client, address4)
	for range 2 { // joining and leaving twice is harmless
		in(t, host, l.Join)
		in(t, host, l.Join)
		reachable(t, client, address4)
		reachable(t, client, address6)

		conn := dial(t, client, address4)
		in(t, host, l.Leave)
		in(t, host, l.Leave)
		if answers(conn, 150*time.Millisecond) {
			t.Error("a connection gets through a link that left the bridge")
		}
		unreachable(t, client, address4)
		in(t, host, l.Join)
		if !answers(conn, 5*time.Second) {
			t.Error("the connection does not live on after the link is back")
		}
		conn.Close()
		in(t, host, l.Leave)
	}
	// Well under a millisecond: it is a part of the downtime. The kernel makes it wait for others' namespaces that are taken
	// down meanwhile, so one that is quick, of many, is enough.
	fastest := time.Hour
	for tries := 0; tries < 200 && fastest > 10*time.Millisecond; tries++ {
		in(t, host, l.Join)
		start := time.Now()
		in(t, host, l.Leave)
		fastest = min(fastest, time.Since(start))
	}
	if fastest > 10*time.Millisecond {
		t.Errorf("leaving took %v, or more", fastest)
	}
	in(t, host, l.Delete)
	in(t, host, l.Delete)
	if err := netns.Do(host, l.Join); !errors.Is(err, ErrNotFound) {
		t.Errorf("joining a deleted link: %v", err)
	}
}

func TestHostIsDeafOnALinkThatLeft(t *testing.T) {
	wire := newSwitch(t)
	host := wire.newHost(t, "a")
	container := newNamespace(t)
	mustAttach(t, host, container, containerConfig())
	in(t, host, func() error { return addAddress("br0", "10.9.0.1/24") })

	// The host would answer for an address of its bridge on every interface.
	var conn net.Conn
	in(t, container, func() (err error) {
		conn, err = net.Dial("udp4", "10.9.0.1:9")
		return err
	})
	defer conn.Close()
	if _, err := conn.Write([]byte("who has 10.9.0.1?")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	in(t, container, func() error {
		neighbours, err := netlink.NeighList(0, netlink.FAMILY_V4)
		for _, n := range neighbours {
			if n.HardwareAddr != nil && n.State&(netlink.NUD_REACHABLE|netlink.NUD_STALE|netlink.NUD_DELAY) != 0 {
				t.Errorf("the host answered: %v", n)
			}
		}
		return err
	})
}

func TestAnnounceMovesTheAddressesToTheOtherHost(t *testing.T) {
	wire := newSwitch(t)
	hostA, hostB := wire.newHost(t, "a"), wire.newHost(t, "b")
	client := wire.newClient(t)
	at, to := newNamespace(t), newNamespace(t)

	config := containerConfig()
	source := mustAttach(t, hostA, at, config)
	in(t, hostA, source.Join)
	echo(t, at)
	reachable(t, client, address4)
	reachable(t, client, address6)
	mac, err := net.ParseMAC(source.Config().MAC)
	if err != nil {
		t.Fatal(err)
	}
	if port := wire.portOf(t, mac); port != "a" {
		t.Fatalf("the switch has learned port %q, want a", port)
	}

	moved := source.Config() // as the state carries it, host end and all
	peer := mustAttach(t, hostB, to, &moved)
	if got := peer.Config().MAC; got != mac.String() {
		t.Fatalf("the address changed on the way: %s, was %s", got, mac)
	}
	echo(t, to)
	in(t, hostA, source.Leave)
	in(t, hostB, peer.Join)
	if err := netns.Do(hostB, func() error { return peer.Announce(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	if port := wire.portOf(t, mac); port != "b" {
		t.Errorf("the switch has learned port %q, want b", port)
	}
	reachable(t, client, address4)
	reachable(t, client, address6)
}

// Only the advertisement can tell, since the client holds the other address as reachable.
func TestAnnounceReplacesWhatNeighboursHold(t *testing.T) {
	wire := newSwitch(t)
	hostA, hostB := wire.newHost(t, "a"), wire.newHost(t, "b")
	client := wire.newClient(t)
	at, to := newNamespace(t), newNamespace(t)
	first := mustAttach(t, hostA, at, containerConfig())
	in(t, hostA, first.Join)
	echo(t, at)
	reachable(t, client, address4)
	reachable(t, client, address6)
	in(t, hostA, first.Leave)

	config := containerConfig()
	config.MAC = "02:00:00:00:00:99"
	second := mustAttach(t, hostB, to, config)
	in(t, hostB, second.Join)
	echo(t, to)
	in(t, hostB, func() error { return second.Announce(t.Context()) })
	reachable(t, client, address4)
	reachable(t, client, address6)
}

// A restored connection says its first word while the link is still off the bridge. The kernel would ask for the neighbour
// again only after a second, which the client would wait.
func TestAnnounceDeliversWhatTheContainerSaidBeforeItJoined(t *testing.T) {
	wire := newSwitch(t)
	host := wire.newHost(t, "a")
	client := wire.newClient(t)
	container := newNamespace(t)
	l := mustAttach(t, host, container, containerConfig())
	for _, address := range []string{"10.9.0.9:7", "[fd09::9]:7"} {
		var hears net.PacketConn
		in(t, client, func() (err error) {
			hears, err = net.ListenPacket("udp", address)
			return err
		})
		defer hears.Close()
		var says net.Conn
		in(t, container, func() (err error) {
			says, err = net.Dial("udp", address)
			return err
		})
		defer says.Close()
		if _, err := says.Write([]byte("first word")); err != nil {
			t.Fatal(err)
		}
		in(t, host, l.Join)
		start := time.Now()
		in(t, host, func() error { return l.Announce(t.Context()) })
		if err := hears.SetReadDeadline(start.Add(500 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := hears.ReadFrom(make([]byte, 64)); err != nil {
			t.Errorf("%s: %v", address, err)
		}
		in(t, host, l.Leave)
	}
}

func TestAttachGivesTheContainerItsIdentity(t *testing.T) {
	wire := newSwitch(t)
	host := wire.newHost(t, "a")
	container := newNamespace(t)
	config := containerConfig()
	config.Interface, config.MTU = "net1", 1400
	l := mustAttach(t, host, container, config)
	if config.HostEnd != HostEndName(t.Name()) || config.MAC == "" {
		t.Errorf("host end %q and mac %q are not stored", config.HostEnd, config.MAC)
	}
	in(t, container, func() error {
		end, err := net.InterfaceByName("net1")
		if err != nil {
			return err
		}
		if end.MTU != 1400 || end.HardwareAddr.String() != config.MAC || end.Flags&net.FlagRunning == 0 {
			t.Errorf("net1 is %+v", end)
		}
		routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
		gateways := 0
		for _, route := range routes {
			if route.Gw != nil {
				gateways++
			}
		}
		if gateways != 2 {
			t.Errorf("%d default routes, want 2: %v", gateways, routes)
		}
		lo, err2 := net.InterfaceByName("lo")
		if err2 == nil && lo.Flags&net.FlagUp == 0 {
			t.Error("lo is down")
		}
		return errors.Join(err, err2)
	})

	again, err := open(host, t.Name(), config)
	if err != nil || again.Config().HostEnd != l.Config().HostEnd {
		t.Errorf("opened %+v, %v", again, err)
	}
	container.Close()
	deadline := time.Now().Add(5 * time.Second)
	for ; !errors.Is(err, ErrNotFound); _, err = open(host, t.Name(), config) {
		if time.Now().After(deadline) {
			t.Fatalf("the link outlives its namespace: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestAttachRefusesAndLeavesNothing(t *testing.T) {
	wire := newSwitch(t)
	host := wire.newHost(t, "a")
	container := newNamespace(t)
	tests := map[string]struct {
		change func(c *Config)
		want   error
		text   string
	}{
		"missing bridge":   {func(c *Config) { c.Bridge = "br7" }, ErrNoBridge, "ip link add br7 type bridge"},
		"not a bridge":     {func(c *Config) { c.Bridge = "lo" }, ErrNoBridge, "not a bridge"},
		"bridge is down":   {func(c *Config) { c.Bridge = "down" }, ErrNoBridge, "ip link set down up"},
		"interface exists": {func(c *Config) { c.Interface = "taken" }, ErrExists, `"taken"`},
	}
	in(t, host, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "down"
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	})
	in(t, container, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "taken"
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	})
	before := countLinks(t, host)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			config := containerConfig()
			test.change(config)
			err := netns.Do(host, func() error { _, err := Attach(t.Context(), container, "refused", config); return err })
			if err == nil || test.want != nil && !errors.Is(err, test.want) || !bytes.Contains([]byte(err.Error()), []byte(test.text)) {
				t.Errorf("got %v, want %v with %q", err, test.want, test.text)
			}
			if after := countLinks(t, host); after != before {
				t.Errorf("%d links on the host, were %d", after, before)
			}
		})
	}

	t.Run("failure inside", func(t *testing.T) { // the pair is made, the addresses are refused
		in(t, container, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0) })
		err := netns.Do(host, func() error { _, err := Attach(t.Context(), container, "refused", containerConfig()); return err })
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte("IPv6 is disabled")) {
			t.Errorf("got %v", err)
		}
		if after := countLinks(t, host); after != before {
			t.Errorf("%d links on the host, were %d", after, before)
		}
	})
}

func TestSameIDUnderTwoRootsOfOneHost(t *testing.T) {
	wire := newSwitch(t)
	host := wire.newHost(t, "a")
	first := mustAttach(t, host, newNamespace(t), containerConfig())
	second := mustAttach(t, host, newNamespace(t), containerConfig())
	if first.Config().HostEnd == second.Config().HostEnd {
		t.Errorf("both are %q", first.Config().HostEnd)
	}
}

func TestCheckPeerSaysWhatTheHostLacks(t *testing.T) {
	wire := newSwitch(t)
	host := wire.newHost(t, "a")
	config := containerConfig()
	in(t, host, func() error { return CheckPeer(config) })
	config.Bridge = "br7"
	if err := netns.Do(host, func() error { return CheckPeer(config) }); !errors.Is(err, ErrNoBridge) {
		t.Errorf("got %v", err)
	}
}
