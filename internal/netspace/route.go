package netspace

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
)

// tableLocal holds what the kernel adds for each address.
const tableLocal = 255

// routeTypes by their words; a route without a word is unicast.
func routeTypes() map[int]string {
	return map[int]string{
		syscall.RTN_UNICAST: "", syscall.RTN_BLACKHOLE: "blackhole", syscall.RTN_UNREACHABLE: "unreachable",
		syscall.RTN_PROHIBIT: "prohibit", syscall.RTN_THROW: "throw",
	}
}

func families() map[int]int { return map[int]int{4: netlink.FAMILY_V4, 6: netlink.FAMILY_V6} }

func (r *reader) routes() error {
	for _, family := range []int{4, 6} {
		every := &netlink.Route{Table: syscall.RT_TABLE_UNSPEC}
		all, err := r.inside.RouteListFiltered(families()[family], every, netlink.RT_FILTER_TABLE)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for i := range all {
			if route := &all[i]; !r.isKernels(route) {
				r.addRoute(family, route)
			}
		}
	}
	return nil
}

func (r *reader) isKernels(route *netlink.Route) bool {
	_, known := routeTypes()[route.Type]
	return route.Protocol == syscall.RTPROT_KERNEL || route.Table == tableLocal || route.Flags&syscall.RTM_F_CLONED != 0 || !known
}

func (r *reader) addRoute(family int, route *netlink.Route) {
	if route.Encap != nil || route.NewDst != nil || route.MPLSDst != nil || route.Tos != 0 {
		r.leave("route %v", route)
		return
	}
	out := Route{
		To: "default", Type: routeTypes()[route.Type], Family: family, Table: route.Table, Protocol: int(route.Protocol),
		Scope: int(route.Scope), Metric: route.Priority, MTU: route.MTU,
	}
	if d := route.Dst; d != nil && (!d.IP.IsUnspecified() || slices.Max(d.Mask) != 0) {
		out.To = d.String()
	}
	if route.Src != nil {
		out.Source = route.Src.String()
	}
	for _, hop := range route.MultiPath {
		out.Hops = append(out.Hops, NextHop{
			Dev: r.names[hop.LinkIndex], Via: gateway(hop.Gw, hop.Via), OnLink: hop.Flags&syscall.RTNH_F_ONLINK != 0, Weight: hop.Hops + 1,
		})
	}
	if len(route.MultiPath) == 0 && route.LinkIndex != 0 {
		out.Hops = []NextHop{{Dev: r.names[route.LinkIndex], Via: gateway(route.Gw, route.Via), OnLink: route.Flags&syscall.RTNH_F_ONLINK != 0}}
	}
	for _, what := range unrecorded(route) {
		r.leave("%s of the route to %s", what, out.To)
	}
	r.record.Routes = append(r.record.Routes, out)
}

// unrecorded are what a route has besides, by their words in ip-route(8).
func unrecorded(route *netlink.Route) []string {
	var all []string
	for _, a := range []struct {
		word string
		has  bool
	}{
		{"realm", route.Realm != 0},
		{"the lock of mtu", route.MTULock},
		{"window", route.Window != 0},
		{"rtt", route.Rtt != 0 || route.RttVar != 0},
		{"ssthresh", route.Ssthresh != 0},
		{"cwnd", route.Cwnd != 0 || route.InitCwnd != 0 || route.InitRwnd != 0},
		{"advmss", route.AdvMSS != 0},
		{"reordering", route.Reordering != 0},
		{"hoplimit", route.Hoplimit != 0},
		{"features", route.Features != 0},
		{"rto_min", route.RtoMin != 0 || route.RtoMinLock},
		{"quickack", route.QuickACK != 0},
		{"congctl", route.Congctl != ""},
		{"fastopen_no_cookie", route.FastOpenNoCookie != 0},
	} {
		if a.has {
			all = append(all, a.word)
		}
	}
	return all
}

func gateway(plain net.IP, other netlink.Destination) string {
	if via, ok := other.(*netlink.Via); ok {
		return via.Addr.String()
	}
	if plain == nil {
		return ""
	}
	return plain.String()
}

// netlinkRoute is what the kernel is asked for. indexes are the interfaces' by name.
func (route *Route) netlinkRoute(indexes map[string]int) (*netlink.Route, error) {
	out := &netlink.Route{
		Family: families()[route.Family], Table: route.Table, Protocol: netlink.RouteProtocol(route.Protocol),
		Scope: netlink.Scope(route.Scope), Priority: route.Metric, MTU: route.MTU, Src: net.ParseIP(route.Source),
	}
	for number, word := range routeTypes() {
		if word == route.Type {
			out.Type = number
		}
	}
	zero := net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if route.Family == 6 {
		zero = net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	out.Dst = &zero
	if route.To != "default" {
		prefix, err := netip.ParsePrefix(route.To)
		if err != nil {
			return nil, fmt.Errorf("%w: route to %.60q", ErrInvalid, route.To)
		}
		out.Dst = ipNet(prefix)
	}
	var hops []*netlink.NexthopInfo
	for _, hop := range route.Hops {
		h := &netlink.NexthopInfo{LinkIndex: indexes[hop.Dev], Hops: max(hop.Weight-1, 0)}
		if hop.OnLink {
			h.Flags |= syscall.RTNH_F_ONLINK
		}
		if ip, err := netip.ParseAddr(hop.Via); err == nil {
			if h.Gw = ip.AsSlice(); ip.Is6() && route.Family == 4 {
				h.Gw, h.Via = nil, &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: ip.AsSlice()}
			}
		}
		hops = append(hops, h)
	}
	if len(hops) == 1 {
		out.LinkIndex, out.Gw, out.Via, out.Flags = hops[0].LinkIndex, hops[0].Gw, hops[0].Via, hops[0].Flags
	} else {
		out.MultiPath = hops
	}
	return out, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// direct tells a route that needs no other to reach its gateway: those are set first.
func (route *Route) direct() bool {
	return !slices.ContainsFunc(route.Hops, func(h NextHop) bool { return h.Via != "" })
}

func (r *reader) rules() error {
	for _, family := range []int{4, 6} {
		all, err := r.inside.RuleList(families()[family])
		if err != nil {
			return fmt.Errorf("list rules: %w", err)
		}
		for i := range all {
			if rule := &all[i]; !isStanding(rule) {
				r.addRule(family, rule)
			}
		}
	}
	return nil
}

// isStanding tells the rules that the kernel makes with the namespace.
func isStanding(rule *netlink.Rule) bool {
	const tableMain, tableDefault = 254, 253
	standing := map[int]int{0: tableLocal, 32766: tableMain, 32767: tableDefault}
	table, ok := standing[rule.Priority]
	return ok && table == rule.Table && rule.Src == nil && rule.Dst == nil && rule.Mark == 0 && rule.IifName == "" && rule.OifName == "" &&
		!rule.Invert && rule.SuppressPrefixlen < 0 && isPlain(rule)
}

// isPlain tells a rule that can be recorded. One that looks up no table forbids, or goes elsewhere: its deed is not told.
func isPlain(rule *netlink.Rule) bool {
	return rule.Table > 0 && rule.Goto <= 0 && rule.Sport == nil && rule.Dport == nil && rule.UIDRange == nil && rule.IPProto == 0 &&
		rule.Tos == 0 && rule.TunID == 0 && rule.SuppressIfgroup < 0 && rule.Flow <= 0
}

func (r *reader) addRule(family int, rule *netlink.Rule) {
	if !isPlain(rule) {
		r.leave("rule %d of IPv%d", rule.Priority, family)
		return
	}
	out := Rule{
		Family: family, Priority: rule.Priority, Table: rule.Table, Mark: rule.Mark,
		In: rule.IifName, Out: rule.OifName, Not: rule.Invert,
	}
	if rule.Src != nil {
		out.From = rule.Src.String()
	}
	if rule.Dst != nil {
		out.To = rule.Dst.String()
	}
	if rule.Mask != nil {
		out.Mask = *rule.Mask
	}
	if rule.SuppressPrefixlen >= 0 {
		out.SuppressPrefix = &rule.SuppressPrefixlen
	}
	r.record.Rules = append(r.record.Rules, out)
}

func (rule *Rule) netlinkRule() (*netlink.Rule, error) {
	out := netlink.NewRule()
	out.Family, out.Priority, out.Table, out.Mark = families()[rule.Family], rule.Priority, rule.Table, rule.Mark
	out.IifName, out.OifName, out.Invert = rule.In, rule.Out, rule.Not
	if rule.Mask != 0 {
		out.Mask = &rule.Mask
	}
	if rule.SuppressPrefix != nil {
		out.SuppressPrefixlen = *rule.SuppressPrefix
	}
	var err error
	if out.Src, err = ruleNet(rule.From); err != nil {
		return nil, err
	}
	if out.Dst, err = ruleNet(rule.To); err != nil {
		return nil, err
	}
	return out, nil
}

func ruleNet(text string) (*net.IPNet, error) {
	if text == "" {
		return nil, nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return nil, fmt.Errorf("%w: rule for %.60q", ErrInvalid, text)
	}
	return ipNet(prefix), nil
}
