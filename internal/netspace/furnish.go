package netspace

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
)

// Furnish gives the namespace that Make has made all that is in the record. Interfaces that a Hook has made are among them; one
// that has addresses by now is the hook's: it keeps them, and has only the routes that the hook gave it. left names what this
// kernel would not have, for people. Everything is cut off, still. A namespace that was there is as its owner and the hook have it.
func (s *Space) Furnish() (left []string, err error) {
	if err := Cut(s.NS); err != nil { // the hook's interfaces
		return nil, err
	}
	if !s.Made {
		return nil, nil
	}
	return furnish(s.NS, s.record, true)
}

// Complete gives a namespace, whose interfaces are there and have the addresses that they were started with, what else is in a
// valid record: what its programs have set since.
func Complete(ns *os.File, r *Record) (left []string, err error) { return furnish(ns, r, false) }

func furnish(ns *os.File, r *Record, hooked bool) (left []string, err error) {
	inside, err := openInside(ns)
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	f := &furnisher{ns: ns, record: r, hooked: hooked, inside: inside, indexes: map[string]int{}, theirs: map[string]bool{}}
	for _, step := range []func() error{f.find, f.links, f.routes, f.rules, f.neighbours} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("furnish network namespace %s: %w", r.Path, err)
		}
	}
	return f.left, nil
}

type furnisher struct {
	ns      *os.File
	record  *Record
	hooked  bool
	inside  *netlink.Handle
	indexes map[string]int  // of interfaces
	theirs  map[string]bool // those that the hook has given addresses
	left    []string
}

// find looks the interfaces up.
func (f *furnisher) find() error {
	for _, l := range f.record.Links {
		link, err := f.inside.LinkByName(l.Name)
		if err != nil && f.hooked && (l.Up || len(l.Addresses) > 0) {
			return fmt.Errorf("there is no interface %s, a %s at the source: the hook has to make it: %w", l.Name, l.Type, err)
		}
		if err != nil {
			f.left = append(f.left, fmt.Sprintf("interface %s, a %s", l.Name, l.Type))
			continue
		}
		f.indexes[l.Name] = link.Attrs().Index
		there, err := f.inside.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return fmt.Errorf("list addresses of %s: %w", l.Name, err)
		}
		f.theirs[l.Name] = f.hooked && !l.isLoopback() && slices.ContainsFunc(there, func(a netlink.Addr) bool { return !a.IP.IsLinkLocalUnicast() })
	}
	return nil
}

func (f *furnisher) links() error {
	r := f.record
	for i := range r.Links {
		l := &r.Links[i]
		if f.indexes[l.Name] == 0 || f.theirs[l.Name] {
			continue
		}
		left, err := writeSysctls(f.ns, r.Sysctls, func(key string) bool { name, of := ofInterface(key); return of && name == l.Name })
		if err != nil {
			return err
		}
		f.left = append(f.left, left...)
		if err := f.link(l); err != nil {
			return fmt.Errorf("interface %s: %w", l.Name, err)
		}
	}
	left, err := writeSysctls(f.ns, r.Sysctls, func(key string) bool { _, of := ofInterface(key); return !of })
	f.left = append(f.left, left...)
	return err
}

func (f *furnisher) link(l *Link) error {
	link, err := f.inside.LinkByIndex(f.indexes[l.Name])
	if err != nil {
		return err
	}
	if mac, err := net.ParseMAC(l.MAC); f.hooked && err == nil && !slices.Equal(mac, link.Attrs().HardwareAddr) {
		if err := f.inside.LinkSetHardwareAddr(link, mac); err != nil {
			return fmt.Errorf("set address %s: %w", l.MAC, err)
		}
	}
	if f.hooked && l.MTU > 0 && link.Attrs().MTU != l.MTU {
		if err := f.inside.LinkSetMTU(link, l.MTU); err != nil {
			return fmt.Errorf("set mtu %d: %w", l.MTU, err)
		}
	}
	for _, prefix := range l.Prefixes() {
		if err := f.inside.AddrReplace(link, address(prefix)); err != nil {
			return fmt.Errorf("add address %s: %w", prefix, err)
		}
	}
	if !l.Up {
		return nil
	}
	if err := f.inside.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up: %w", err)
	}
	return nil
}

// address has no duplicate address detection: it waits about a second, and on a move would find the container itself.
func address(prefix netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(prefix)}
	if prefix.Addr().Is6() {
		a.Flags = syscall.IFA_F_NODAD
	}
	return a
}

func (f *furnisher) routes() error {
	all := slices.Clone(f.record.Routes)
	slices.SortStableFunc(all, func(a, b Route) int {
		switch {
		case a.direct() == b.direct():
			return 0
		case a.direct():
			return -1
		default:
			return 1
		}
	})
	for i := range all {
		route := &all[i]
		if slices.ContainsFunc(route.Hops, func(h NextHop) bool { return f.theirs[h.Dev] || h.Dev != "" && f.indexes[h.Dev] == 0 }) {
			continue
		}
		wanted, err := route.netlinkRoute(f.indexes)
		if err != nil {
			return err
		}
		if err := f.inside.RouteAppend(wanted); err != nil && !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("add route to %s%s: %w", route.To, through(route.Hops), err)
		}
	}
	return nil
}

func through(hops []NextHop) string {
	var text strings.Builder
	for _, h := range hops {
		fmt.Fprintf(&text, " by %s on %s", h.Via, h.Dev)
	}
	return text.String()
}

func (f *furnisher) rules() error {
	for i := range f.record.Rules {
		wanted, err := f.record.Rules[i].netlinkRule()
		if err != nil {
			return err
		}
		if err := f.inside.RuleAdd(wanted); err != nil && !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("add rule %d: %w", wanted.Priority, err)
		}
	}
	return nil
}

func (f *furnisher) neighbours() error {
	for _, n := range f.record.Neighbours {
		mac, err := net.ParseMAC(n.MAC)
		ip := net.ParseIP(n.IP)
		if err != nil || ip == nil {
			return fmt.Errorf("%w: neighbour %.60q", ErrInvalid, n.IP)
		}
		if f.indexes[n.Dev] == 0 || f.theirs[n.Dev] {
			continue
		}
		err = f.inside.NeighSet(&netlink.Neigh{LinkIndex: f.indexes[n.Dev], IP: ip, HardwareAddr: mac, State: netlink.NUD_PERMANENT})
		if err != nil {
			return fmt.Errorf("add neighbour %s: %w", n.IP, err)
		}
	}
	return nil
}
