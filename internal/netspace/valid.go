package netspace

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxName  = 15      // IFNAMSIZ less the final zero byte
	maxPath  = 1024    // of the namespace
	maxValue = 1 << 12 // of a kernel parameter
	maxAll   = 1 << 13 // links, routes and so on, each
)

// Validate finds what no kernel could have told. A record comes from another host, and goes to a hook: of a valid one every text is
// a name, an address or a number, but for the values of kernel parameters.
func (r *Record) Validate() error {
	if len(r.Links) > maxAll || len(r.Routes) > maxAll || len(r.Rules) > maxAll || len(r.Neighbours) > maxAll || len(r.Sysctls) > maxAll {
		return fmt.Errorf("%w: more than %d of a kind", ErrInvalid, maxAll)
	}
	for i := range r.Links {
		if err := r.Links[i].validate(); err != nil {
			return err
		}
	}
	for i := range r.Routes {
		if err := r.Routes[i].validate(); err != nil {
			return err
		}
	}
	for i := range r.Rules {
		rule := &r.Rules[i]
		if _, err := rule.netlinkRule(); err != nil {
			return err
		}
		if families()[rule.Family] == 0 || rule.Table <= 0 || !nameOrNone(rule.In) || !nameOrNone(rule.Out) {
			return fmt.Errorf("%w: rule %d", ErrInvalid, rule.Priority)
		}
	}
	for _, n := range r.Neighbours {
		if _, err := net.ParseMAC(n.MAC); err != nil || !validName(n.Dev) || !addressOrNone(n.IP) || n.IP == "" {
			return fmt.Errorf("%w: neighbour %.60q", ErrInvalid, n.IP)
		}
	}
	for key, value := range r.Sysctls {
		if !validSysctl(key) || len(value) > maxValue || strings.ContainsRune(value, 0) {
			return fmt.Errorf("%w: sysctl %.100q", ErrInvalid, key)
		}
	}
	return nil
}

func validPath(path string) bool {
	return filepath.IsAbs(path) && filepath.Clean(path) == path && len(path) <= maxPath && !strings.ContainsRune(path, 0)
}

func (l *Link) validate() error {
	kind := strings.Trim(l.Type, "abcdefghijklmnopqrstuvwxyz0123456789-_") // as the kernel's modules name them
	if !validName(l.Name) || !nameOrNone(l.Bridge) || l.Type == "" || len(l.Type) > maxName || kind != "" || l.MTU < 0 {
		return fmt.Errorf("%w: interface %.40q, a %.40q on bridge %.40q", ErrInvalid, l.Name, l.Type, l.Bridge)
	}
	if l.MAC != "" {
		if _, err := net.ParseMAC(l.MAC); err != nil {
			return fmt.Errorf("%w: interface %s: %w", ErrInvalid, l.Name, err)
		}
	}
	for _, address := range l.Addresses {
		if _, err := netip.ParsePrefix(address); err != nil {
			return fmt.Errorf("%w: interface %s: %w", ErrInvalid, l.Name, err)
		}
	}
	return nil
}

func (route *Route) validate() error {
	if _, err := route.netlinkRoute(nil); err != nil {
		return err
	}
	known := false
	for _, word := range routeTypes() {
		known = known || word == route.Type
	}
	hops := slices.ContainsFunc(route.Hops, func(h NextHop) bool { return !nameOrNone(h.Dev) || !addressOrNone(h.Via) })
	if families()[route.Family] == 0 || !known || hops || !addressOrNone(route.Source) {
		return fmt.Errorf("%w: route to %s", ErrInvalid, route.To)
	}
	return nil
}

// validName is the kernel's dev_valid_name, and refuses '%' too: the kernel would fill in a number.
func validName(name string) bool {
	return name != "" && len(name) <= maxName && name != "." && name != ".." && !strings.ContainsAny(name, "/:% \t\n\v\f\r\x00")
}

func nameOrNone(name string) bool { return name == "" || validName(name) }

func addressOrNone(text string) bool {
	ip, err := netip.ParseAddr(text)
	return text == "" || err == nil && ip.Zone() == ""
}
