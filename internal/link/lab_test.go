package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"

	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/testutil"
)

// netSwitch is a network switch between hosts: a bridge in a namespace of its own, one port a host, named like it.
type netSwitch struct{ ns *os.File }

func newSwitch(t *testing.T) *netSwitch {
	t.Helper()
	testutil.Root(t)
	wire := &netSwitch{ns: newNamespace(t)}
	in(t, wire.ns, func() error { return addBridge("switch") })
	return wire
}

// newHost is a namespace with the bridge br0, which the switch is plugged into.
func (s *netSwitch) newHost(t *testing.T, name string) *os.File {
	t.Helper()
	host := newNamespace(t)
	in(t, host, func() error { return addBridge("br0") })
	s.plug(t, host, name, "uplink")
	in(t, host, func() error { return setMaster("uplink", "br0") })
	return host
}

func (s *netSwitch) newClient(t *testing.T) *os.File {
	t.Helper()
	client := newNamespace(t)
	s.plug(t, client, "client", "eth0")
	in(t, client, func() error {
		return errors.Join(addAddress("eth0", "10.9.0.9/24"), addAddress("eth0", "fd09::9/64"))
	})
	return client
}

func (s *netSwitch) plug(t *testing.T, ns *os.File, port, name string) {
	t.Helper()
	in(t, s.ns, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = port
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name, PeerNamespace: netlink.NsFd(ns.Fd())})
		return errors.Join(err, setMaster(port, "switch"), setUp(port))
	})
	in(t, ns, func() error { return setUp(name) })
}

// portOf is the port behind which the switch has learned the address.
func (s *netSwitch) portOf(t *testing.T, mac net.HardwareAddr) (name string) {
	t.Helper()
	in(t, s.ns, func() error {
		entries, err := netlink.NeighList(0, syscall.AF_BRIDGE)
		for _, entry := range entries {
			if bytes.Equal(entry.HardwareAddr, mac) {
				port, err := net.InterfaceByIndex(entry.LinkIndex)
				if err != nil {
					return err
				}
				name = port.Name
			}
		}
		return err
	})
	return name
}

func newNamespace(t *testing.T) *os.File {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	in(t, ns, func() error { return setUp("lo") })
	return ns
}

func in(t *testing.T, ns *os.File, f func() error) {
	t.Helper()
	if err := netns.Do(ns, f); err != nil {
		t.Fatal(err)
	}
}

func mustAttach(t *testing.T, host, container *os.File, c *Config) (l *Link) {
	t.Helper()
	in(t, host, func() (err error) {
		l, err = Attach(t.Context(), container, t.Name(), c)
		return err
	})
	return l
}

func open(host *os.File, id string, c *Config) (l *Link, err error) {
	err = netns.Do(host, func() error {
		l, err = Open(id, nil, c)
		return err
	})
	return l, err
}

func addBridge(name string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	snooping := false // nobody sends queries here
	return errors.Join(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}), setUp(name))
}

func setUp(name string) error {
	end, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(end)
}

func setMaster(name, bridge string) error {
	end, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	master, err := netlink.LinkByName(bridge)
	if err != nil {
		return err
	}
	return netlink.LinkSetMaster(end, master)
}

func addAddress(name, cidr string) error {
	end, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	addr.Flags = syscall.IFA_F_NODAD
	return netlink.AddrAdd(end, addr)
}

func countLinks(t *testing.T, ns *os.File) int {
	t.Helper()
	handle, err := netlink.NewHandleAt(vnetns.NsHandle(ns.Fd()), syscall.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	links, err := handle.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	return len(links)
}

// echo answers every connection to the port with what it sends.
func echo(t *testing.T, ns *os.File) {
	t.Helper()
	var listener net.Listener
	in(t, ns, func() (err error) {
		listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", ":"+port)
		return err
	})
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
}

func tryDial(ns *os.File, ip string, timeout time.Duration) (conn net.Conn, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err = netns.Do(ns, func() error {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(ip, port))
		return err
	})
	return conn, err
}

func dial(t *testing.T, ns *os.File, ip string) net.Conn {
	t.Helper()
	conn, err := tryDial(ns, ip, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if !answers(conn, 5*time.Second) {
		t.Fatalf("%s does not answer", ip)
	}
	return conn
}

func reachable(t *testing.T, ns *os.File, ip string) {
	t.Helper()
	dial(t, ns, ip).Close()
}

func unreachable(t *testing.T, ns *os.File, ip string) {
	t.Helper()
	if conn, err := tryDial(ns, ip, 150*time.Millisecond); err == nil {
		conn.Close()
		t.Fatalf("%s is reached", ip)
	}
}

func answers(conn net.Conn, within time.Duration) bool {
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return false
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		return false
	}
	_, err := io.ReadFull(conn, make([]byte, 5))
	return err == nil
}
