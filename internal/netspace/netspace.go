// Package netspace moves a network namespace that a container was given by its path, as engines and `ip netns` make it.
//
// In the order of a move:
//
//  1. Read records, at the source, what is in the namespace and what its ends on the host are connected to.
//  2. Look tells, at the peer, what is at the path there, and Fit whether the record can be made here.
//  3. Make makes the namespace at the same path, with everything that is in the record. It is cut off. One that is there
//     already, with the record's addresses, is cut off and taken as it is.
//  4. Cut, at the source's freeze, and Join, at the peer when the container runs, hand the addresses over: a namespace that
//     is cut off neither sends nor receives anything but on its loopback, ARP and neighbour discovery included.
//
// A Hook is the operator's program, for what is connected otherwise than to a bridge. All other work is done by netlink from
// this process, in its own network namespace ("the host") and in the container's.
package netspace

import (
	"errors"
	"net/netip"
)

var (
	// ErrOther: there is something else at the path: no network namespace, or one with other addresses. Remove it, or give the
	// container another path.
	ErrOther = errors.New("the path is taken")
	// ErrUnconnected: nothing on this host takes the place of what an interface was connected to. Make the bridge, or set a hook.
	ErrUnconnected = errors.New("nothing to connect it to")
	// ErrPlace: no namespace is made at such a path, but in a directory netns below /run. One that is there is used.
	ErrPlace = errors.New("no place for a network namespace")
	// ErrNoIPv6: this host has none, and the record has such addresses.
	ErrNoIPv6 = errors.New("this host has no IPv6")
	// ErrInvalid: the record names what no host can have. Its sender is no migrate, or a broken one.
	ErrInvalid = errors.New("not a network that can be made")
)

// Record is what is in a network namespace. It travels with the container, and a Hook gets it as JSON.
type Record struct {
	Path       string            `json:"path"` // where the namespace is mounted; empty for one that is not
	Links      []Link            `json:"links"`
	Routes     []Route           `json:"routes,omitempty"` // without what the kernel adds by itself
	Rules      []Rule            `json:"rules,omitempty"`  // without the three that are always there
	Neighbours []Neighbour       `json:"neighbours,omitempty"`
	Sysctls    map[string]string `json:"sysctls,omitempty"` // by path below /proc/sys: net/ipv4/conf/eth0/rp_filter
}

// Link is a network interface in the namespace.
type Link struct {
	Name      string   `json:"name"`
	Type      string   `json:"type"` // veth, macvlan, ...; loopback for lo
	MAC       string   `json:"mac,omitempty"`
	MTU       int      `json:"mtu"`
	Up        bool     `json:"up"`
	Addresses []string `json:"addresses,omitempty"` // CIDR, IPv4 and IPv6, but for 127.0.0.1 and ::1
	Bridge    string   `json:"bridge,omitempty"`    // of the host, that the other end of a veth is a port of
}

// Route is one that somebody has set.
type Route struct {
	To       string    `json:"to"` // "default" or CIDR
	Type     string    `json:"type,omitempty"`
	Family   int       `json:"family"` // 4 or 6
	Table    int       `json:"table"`
	Protocol int       `json:"protocol"`
	Scope    int       `json:"scope"`
	Metric   int       `json:"metric,omitempty"`
	Source   string    `json:"source,omitempty"`
	MTU      int       `json:"mtu,omitempty"`
	Hops     []NextHop `json:"hops,omitempty"`
}

// NextHop is a way that a route goes.
type NextHop struct {
	Dev    string `json:"dev,omitempty"`
	Via    string `json:"via,omitempty"`
	OnLink bool   `json:"onlink,omitempty"`
	Weight int    `json:"weight,omitempty"`
}

// Rule chooses a table of routes.
type Rule struct {
	Family         int    `json:"family"` // 4 or 6
	Priority       int    `json:"priority"`
	Table          int    `json:"table"`
	From           string `json:"from,omitempty"` // CIDR
	To             string `json:"to,omitempty"`
	Mark           uint32 `json:"mark,omitempty"`
	Mask           uint32 `json:"mask,omitempty"`
	In             string `json:"iif,omitempty"`
	Out            string `json:"oif,omitempty"`
	Not            bool   `json:"not,omitempty"`
	SuppressPrefix *int   `json:"suppress_prefixlength,omitempty"`
}

// Neighbour is a permanent entry.
type Neighbour struct {
	Dev string `json:"dev"`
	IP  string `json:"ip"`
	MAC string `json:"mac"`
}

// Addresses are those that others know the container by, without the length of their prefixes.
func (r *Record) Addresses() []netip.Addr {
	var all []netip.Addr
	for _, l := range r.Links {
		for _, p := range l.Prefixes() {
			if !p.Addr().IsLinkLocalUnicast() {
				all = append(all, p.Addr())
			}
		}
	}
	return all
}

// Prefixes are the parsed Addresses of a valid link.
func (l *Link) Prefixes() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range l.Addresses {
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// isLoopback tells lo, which is in every namespace.
func (l *Link) isLoopback() bool { return l.Type == loopback }

const loopback = "loopback"
