package netspace

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Read records the network namespace ns, which is mounted at path. What cannot be recorded is named in left, for people. It
// needs CAP_NET_ADMIN, and CAP_SYS_ADMIN for the kernel's defaults, which it finds in a namespace of its own.
func Read(ns *os.File, path string) (_ *Record, left []string, err error) {
	inside, err := openInside(ns)
	if err != nil {
		return nil, nil, err
	}
	defer inside.Close()
	r := &reader{ns: ns, inside: inside, names: map[int]string{}, record: &Record{Path: path}}
	for _, read := range []func() error{r.links, r.routes, r.rules, r.neighbours} {
		if err := read(); err != nil {
			return nil, nil, fmt.Errorf("record network namespace %s: %w", path, err)
		}
	}
	if r.record.Sysctls, err = readSysctls(ns); err != nil {
		return nil, nil, fmt.Errorf("record network namespace %s: %w", path, err)
	}
	tables, err := tables(ns)
	if err != nil {
		return nil, nil, fmt.Errorf("record network namespace %s: %w", path, err)
	}
	for _, table := range tables {
		r.leave("nftables table %s", table)
	}
	return r.record, r.left, nil
}

func openInside(ns *os.File) (*netlink.Handle, error) {
	inside, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), syscall.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket in the network namespace: %w", err)
	}
	return inside, nil
}

type reader struct {
	ns     *os.File
	inside *netlink.Handle
	names  map[int]string // of interfaces, by index
	record *Record
	left   []string
}

func (r *reader) leave(format string, args ...any) {
	r.left = append(r.left, fmt.Sprintf(format, args...))
}

func (r *reader) links() error {
	links, err := r.inside.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		r.names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range links {
		a := l.Attrs()
		if isFallback(l) {
			continue
		}
		recorded := Link{Name: a.Name, Type: l.Type(), MTU: a.MTU, Up: a.Flags&net.FlagUp != 0}
		if a.Flags&net.FlagLoopback != 0 {
			recorded.Type = loopback
		} else if recorded.Type == "" {
			recorded.Type = "device" // as netlink's library calls one of hardware
		}
		if recorded.Type != loopback && len(a.HardwareAddr) > 0 {
			recorded.MAC = a.HardwareAddr.String()
		}
		if recorded.Bridge, err = r.bridgeOf(l); err != nil {
			return err
		}
		addresses, err := r.inside.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return fmt.Errorf("list addresses of %s: %w", a.Name, err)
		}
		for _, address := range addresses {
			prefix, ok := prefixOf(&address)
			if ip := prefix.Addr(); !ok || ip == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || ip == netip.IPv6Loopback() {
				continue
			}
			recorded.Addresses = append(recorded.Addresses, prefix.String())
			r.leaveOf(&address, prefix)
		}
		r.record.Links = append(r.record.Links, recorded)
	}
	return nil
}

// leaveOf names what an address has besides.
func (r *reader) leaveOf(address *netlink.Addr, prefix netip.Prefix) {
	for _, a := range []struct {
		word string
		has  bool
	}{
		{"the peer", address.Peer != nil},
		{"the lifetime", address.Flags&syscall.IFA_F_PERMANENT == 0},
		{"the scope", prefix.Addr().Is4() && address.Scope != syscall.RT_SCOPE_UNIVERSE && !prefix.Addr().IsLoopback()},
		{"noprefixroute", address.Flags&flagNoPrefixRoute != 0},
	} {
		if a.has {
			r.leave("%s of the address %s", a.word, prefix)
		}
	}
}

const flagNoPrefixRoute = 0x200 // IFA_F_NOPREFIXROUTE

// isFallback tells the devices that tunnel modules put down in every namespace (tunl0, sit0, ip6tnl0, gre0 ...).
func isFallback(l netlink.Link) bool {
	switch l.Type() {
	case "ipip", "sit", "ip6tnl", "gre", "gretap", "ip6gre", "ip6gretap", "erspan", "ip6erspan", "vti", "vti6", "tunl":
		return l.Attrs().Flags&net.FlagUp == 0
	}
	return false
}

// bridgeOf is the host's bridge that the other end of a veth is a port of; empty for anything else.
func (r *reader) bridgeOf(l netlink.Link) (string, error) {
	end, err := hostEnd(r.ns, l)
	if end == nil || err != nil || end.Attrs().MasterIndex == 0 {
		return "", err
	}
	bridge, err := netlink.LinkByIndex(end.Attrs().MasterIndex)
	if err != nil {
		return "", fmt.Errorf("find the bridge of %s: %w", end.Attrs().Name, err)
	}
	if bridge.Type() != "bridge" {
		return "", nil
	}
	return bridge.Attrs().Name, nil
}

// hostEnd is the other end of a veth in ns, if that is in this process's namespace; nil otherwise.
func hostEnd(ns *os.File, l netlink.Link) (netlink.Link, error) {
	if l.Type() != "veth" {
		return nil, nil
	}
	end, err := netlink.LinkByIndex(l.Attrs().ParentIndex)
	if err != nil || end.Type() != "veth" || end.Attrs().ParentIndex != l.Attrs().Index {
		return nil, nil //nolint:nilerr // it is in another namespace
	}
	// Another pair may have the same two numbers: what end's other end is in has to be ns. Asking for end gave ns a number.
	id, err := netlink.GetNetNsIdByFd(int(ns.Fd()))
	if err != nil {
		return nil, fmt.Errorf("find the number of the network namespace: %w", err)
	}
	if id < 0 || end.Attrs().NetNsID != id {
		return nil, nil
	}
	return end, nil
}

func (r *reader) neighbours() error {
	all, err := r.inside.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range all {
		if n.State&netlink.NUD_PERMANENT != 0 && len(n.HardwareAddr) > 0 && n.IP != nil && r.names[n.LinkIndex] != "" {
			r.record.Neighbours = append(r.record.Neighbours, Neighbour{
				Dev: r.names[n.LinkIndex], IP: n.IP.String(), MAC: n.HardwareAddr.String(),
			})
		}
	}
	return nil
}

// Ethernet are the interfaces that are up and have addresses now, and neighbours that ask for them. Only their names and addresses
// are told.
func Ethernet(ns *os.File) ([]Link, error) {
	inside, err := openInside(ns)
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	links, err := inside.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	addresses, err := inside.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var all []Link
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagUp == 0 || a.Flags&net.FlagLoopback != 0 || a.EncapType != "ether" {
			continue
		}
		out := Link{Name: a.Name, Up: true}
		for _, address := range addresses {
			if prefix, ok := prefixOf(&address); ok && address.LinkIndex == a.Index && address.Flags&syscall.IFA_F_DADFAILED == 0 {
				out.Addresses = append(out.Addresses, prefix.String())
			}
		}
		if len(out.Addresses) > 0 {
			all = append(all, out)
		}
	}
	return all, nil
}

func prefixOf(address *netlink.Addr) (netip.Prefix, bool) {
	ones, _ := address.Mask.Size()
	ip, ok := netip.AddrFromSlice(address.IP)
	return netip.PrefixFrom(ip.Unmap(), ones), ok
}
