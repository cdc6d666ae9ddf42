// Package link is a container's place on its network: a veth pair between its network namespace and a bridge of the host.
//
// In the order of a container's life, and of a move:
//
//  1. Attach makes the pair. The container's end is complete and up; the host's end is up but on no bridge: nothing
//     gets in or out.
//  2. Join puts the host's end on the bridge.
//  3. Announce tells the neighbours and switches where the addresses are now.
//  4. Leave takes it off again. The container sees no change on its interface (a link that went down would lose routes),
//     but frames are dropped both ways: this is the network lock of a move.
//  5. Delete removes the pair. It goes by itself with the network namespace.
//
// All work is done by netlink from this process, in its network namespace ("the host") and in the container's.
package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

var (
	// ErrNoBridge: the host has no such bridge, or it is down. The text says how to make it.
	ErrNoBridge = errors.New("no usable bridge")
	// ErrExists: the namespace already has an interface of the name. Choose another with interface=NAME.
	ErrExists = errors.New("interface exists already")
	// ErrNotFound: the host's end is gone, and so the container's. Nothing but a new Attach brings it back.
	ErrNotFound = errors.New("link does not exist")
)

// addrGenModeNone is IN6_ADDR_GEN_MODE_NONE (linux/if_link.h): the interface makes no link-local address.
const addrGenModeNone = 1

// Link is the veth pair of one container. Its methods are safe for concurrent use.
type Link struct {
	config Config
	ns     *os.File
}

// Attach makes the container's link in the network namespace ns, which needs no process in it, and leaves it off the
// bridge. It sets c.HostEnd, and c.MAC when it is empty: keep c. ns stays the caller's; keep it open while the Link is
// used. It needs CAP_NET_ADMIN in both namespaces. When it fails nothing is left behind.
func Attach(ctx context.Context, ns *os.File, id string, c *Config) (*Link, error) {
	l, err := attach(ctx, ns, id, *c)
	if err != nil {
		return nil, fmt.Errorf("attach container %q to bridge %q: %w", id, c.Bridge, err)
	}
	c.HostEnd, c.MAC = l.config.HostEnd, l.config.MAC
	return l, nil
}

func attach(ctx context.Context, ns *os.File, id string, c Config) (_ *Link, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	bridge, err := findBridge(c.Bridge)
	if err != nil {
		return nil, err
	}
	inside, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), syscall.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket in the container's network namespace: %w", err)
	}
	defer inside.Close()
	if _, err := inside.LinkByName(c.iface()); err == nil {
		return nil, fmt.Errorf("%w: %q in the container's network namespace", ErrExists, c.iface())
	}

	l := &Link{config: c, ns: ns}
	if l.config.MAC == "" {
		l.config.MAC = deriveMAC(id, c.Addresses).String()
	}
	if err := l.makePair(id, bridge.Attrs().MTU); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Delete())
		}
	}()
	end, err := l.hostEnd()
	if err != nil {
		return nil, err
	}
	if err := l.openHostEnd(end); err != nil {
		return nil, err
	}
	if err := l.configureContainerEnd(inside); err != nil {
		return nil, err
	}
	return l, nil
}

// Open is the link that Attach made earlier, or that CRIU restored with c.HostEnd as its host's end. ns may be nil when
// Announce is not needed. ErrNotFound when it is gone.
func Open(id string, ns *os.File, c *Config) (*Link, error) {
	l := &Link{config: *c, ns: ns}
	if l.config.HostEnd == "" {
		l.config.HostEnd = HostEndName(id)
	}
	if _, err := l.hostEnd(); err != nil {
		return nil, fmt.Errorf("open link of container %q: %w", id, err)
	}
	return l, nil
}

// makePair makes both ends at once, the container's directly in its namespace: it never passes through the host's, where
// its name may be taken. Names of the host's end are tried in a fixed order, because a container of the same id may live
// under another root, as on a move within one host.
func (l *Link) makePair(id string, bridgeMTU int) error {
	mac, err := parseMAC(l.config.MAC)
	if err != nil {
		return err
	}
	mtu := l.config.MTU
	if mtu == 0 {
		mtu = bridgeMTU
	}
	const attempts = 8
	for attempt := range attempts {
		name := hostEndName(id, attempt)
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		attrs.MTU = mtu
		attrs.HardwareAddr = hostEndMAC(name)
		err = netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:        attrs,
			PeerName:         l.config.iface(),
			PeerHardwareAddr: mac,
			PeerMTU:          uint32(mtu),
			PeerNamespace:    netlink.NsFd(l.ns.Fd()),
		})
		if err == nil {
			l.config.HostEnd = name
			return nil
		}
		if !errors.Is(err, syscall.EEXIST) {
			break
		}
	}
	return fmt.Errorf("make veth pair: %w", err)
}

// openHostEnd brings the host's end up, and makes the host deaf on it. Off the bridge the host would otherwise answer the
// container's ARP requests for any address that it has, and take its packets: the lock would leak, and leave a wrong
// neighbour behind. Once on the bridge, frames are the bridge's before the host's protocols see them.
func (l *Link) openHostEnd(end netlink.Link) error {
	if err := netlink.LinkSetARPOff(end); err != nil {
		return fmt.Errorf("turn off ARP on %q: %w", l.config.HostEnd, err)
	}
	// A host without IPv6 has no such mode, and no need of it.
	err := netlink.LinkSetIP6AddrGenMode(end, addrGenModeNone)
	if err != nil && !errors.Is(err, syscall.EAFNOSUPPORT) && !errors.Is(err, syscall.EOPNOTSUPP) {
		return fmt.Errorf("turn off IPv6 addresses on %q: %w", l.config.HostEnd, err)
	}
	if err := netlink.LinkSetUp(end); err != nil {
		return fmt.Errorf("bring up %q: %w", l.config.HostEnd, err)
	}
	return nil
}

// configureContainerEnd brings up the loopback and the container's end with its addresses and default routes.
func (l *Link) configureContainerEnd(inside *netlink.Handle) error {
	for _, name := range []string{"lo", l.config.iface()} {
		end, err := inside.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %q in the container's network namespace: %w", name, err)
		}
		if err := inside.LinkSetUp(end); err != nil {
			return fmt.Errorf("bring up %q in the container's network namespace: %w", name, err)
		}
	}
	end, err := inside.LinkByName(l.config.iface())
	if err != nil {
		return fmt.Errorf("find %q in the container's network namespace: %w", l.config.iface(), err)
	}
	prefixes, err := l.config.prefixes()
	if err != nil {
		return err
	}
	for _, prefix := range prefixes {
		if err := inside.AddrAdd(end, address(prefix)); err != nil {
			return fmt.Errorf("add address %s: %w", prefix, disabledIPv6(prefix.Addr(), err))
		}
	}
	for _, gateway := range l.config.Gateways {
		route := &netlink.Route{LinkIndex: end.Attrs().Index, Gw: net.ParseIP(gateway)}
		if err := inside.RouteAdd(route); err != nil {
			return fmt.Errorf("add default route by %s: %w", gateway, err)
		}
	}
	return nil
}

// address has no duplicate address detection: it waits about a second, and on a move would find the container itself.
func address(prefix netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{
		IP:   prefix.Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}}
	if prefix.Addr().Is6() {
		a.Flags = syscall.IFA_F_NODAD
	}
	return a
}

// disabledIPv6 says what the kernel means by its refusal.
func disabledIPv6(ip netip.Addr, err error) error {
	if ip.Is6() && (errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EOPNOTSUPP)) {
		return fmt.Errorf("%w (IPv6 is disabled in the container's network namespace: sysctl net.ipv6.conf.all.disable_ipv6)", err)
	}
	return err
}

// Join puts the host's end on the bridge: from here the container is reachable. Joining twice is harmless.
func (l *Link) Join() error {
	bridge, err := findBridge(l.config.Bridge)
	if err != nil {
		return fmt.Errorf("join bridge %q: %w", l.config.Bridge, err)
	}
	end, err := l.hostEnd()
	if err != nil {
		return fmt.Errorf("join bridge %q: %w", l.config.Bridge, err)
	}
	// A pair that CRIU made is down and as the kernel makes it.
	if err := l.openHostEnd(end); err != nil {
		return fmt.Errorf("join bridge %q: %w", l.config.Bridge, err)
	}
	if err := netlink.LinkSetMaster(end, bridge); err != nil {
		return fmt.Errorf("join bridge %q with %q: %w", l.config.Bridge, l.config.HostEnd, err)
	}
	return nil
}

// Leave takes the host's end off the bridge: when it returns, frames are dropped both ways. Leaving twice is harmless.
func (l *Link) Leave() error {
	end, err := l.hostEnd()
	if err != nil {
		return fmt.Errorf("leave bridge %q: %w", l.config.Bridge, err)
	}
	if err := netlink.LinkSetNoMaster(end); err != nil {
		return fmt.Errorf("leave bridge %q with %q: %w", l.config.Bridge, l.config.HostEnd, err)
	}
	return nil
}

// Delete removes both ends. A link that is gone already is no error.
func (l *Link) Delete() error {
	end, err := l.hostEnd()
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(end)
	}
	if err != nil && !errors.Is(err, syscall.ENODEV) {
		return fmt.Errorf("delete link %q: %w", l.config.HostEnd, err)
	}
	return nil
}

// Config is a copy of the link's configuration, complete with MAC and HostEnd.
func (l *Link) Config() Config { return l.config }

// hostEnd looks the host's end up by name every time: an index kept from before may be another's by now.
func (l *Link) hostEnd() (netlink.Link, error) {
	end, err := netlink.LinkByName(l.config.HostEnd)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil, fmt.Errorf("%w: %q", ErrNotFound, l.config.HostEnd)
	}
	if err != nil {
		return nil, fmt.Errorf("find %q: %w", l.config.HostEnd, err)
	}
	if end.Type() != "veth" {
		return nil, fmt.Errorf("%w: %q is a %s of somebody else's", ErrNotFound, l.config.HostEnd, end.Type())
	}
	return end, nil
}

// CheckPeer names what on this host would stop a container of this configuration that comes from another one.
func CheckPeer(c *Config) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("check network: %w", err)
	}
	if _, err := findBridge(c.Bridge); err != nil {
		return fmt.Errorf("check network: %w", err)
	}
	return nil
}

func findBridge(name string) (netlink.Link, error) {
	bridge, err := netlink.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil, fmt.Errorf("%w: %q does not exist on this host (ip link add %s type bridge && ip link set %s up)",
			ErrNoBridge, name, name, name)
	}
	if err != nil {
		return nil, fmt.Errorf("find bridge %q: %w", name, err)
	}
	if bridge.Type() != "bridge" {
		return nil, fmt.Errorf("%w: %q is a %s interface, not a bridge", ErrNoBridge, name, bridge.Type())
	}
	if bridge.Attrs().Flags&net.FlagUp == 0 {
		return nil, fmt.Errorf("%w: %q is down (ip link set %s up)", ErrNoBridge, name, name)
	}
	return bridge, nil
}
