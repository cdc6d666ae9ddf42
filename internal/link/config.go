package link

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// DefaultInterface is the device's name in the container where a Config has none.
const DefaultInterface = "eth0"

const (
	maxName    = 15 // IFNAMSIZ less the final zero byte
	minMTU     = 68 // RFC 791
	minMTUIPv6 = 1280
	maxMTU     = 65535
)

// Config is what a container is on its network. It is kept in the container's state and travels with it.
type Config struct {
	Bridge    string   `json:"bridge"`              // on the host, made by the operator
	Interface string   `json:"interface,omitempty"` // in the container; eth0 when empty
	Addresses []string `json:"addresses"`           // CIDR, IPv4 and IPv6
	Gateways  []string `json:"gateways,omitempty"`  // default routes, at most one of each family
	MAC       string   `json:"mac,omitempty"`       // derived by Attach when empty, and kept on a move
	MTU       int      `json:"mtu,omitempty"`       // bytes; 0 is the bridge's on whichever host the container runs
	HostEnd   string   `json:"host_end,omitempty"`  // the veth's other end on this host; set by Attach
}

// Parse reads the --network flag: bridge=BR,address=CIDR[,address=CIDR][,gateway=IP][,mac=MAC][,mtu=N][,interface=NAME].
// address may be repeated, and gateway once for each family. The result is valid.
func Parse(flag string) (*Config, error) {
	c := &Config{}
	for field := range strings.SplitSeq(flag, ",") {
		key, value, ok := strings.Cut(field, "=")
		if !ok || value == "" {
			return nil, fmt.Errorf("parse network %q: %q is not key=value", flag, field)
		}
		if err := c.set(key, value); err != nil {
			return nil, fmt.Errorf("parse network %q: %w", flag, err)
		}
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("parse network %q: %w", flag, err)
	}
	return c, nil
}

func (c *Config) set(key, value string) error {
	switch key {
	case "bridge":
		return setOnce(&c.Bridge, key, value)
	case "interface":
		return setOnce(&c.Interface, key, value)
	case "mac":
		return setOnce(&c.MAC, key, value)
	case "address":
		c.Addresses = append(c.Addresses, value)
	case "gateway":
		c.Gateways = append(c.Gateways, value)
	case "mtu":
		if c.MTU != 0 {
			return fmt.Errorf("mtu is given twice")
		}
		mtu, err := strconv.Atoi(value)
		if err != nil || mtu <= 0 {
			return fmt.Errorf("mtu %q is not a positive number", value)
		}
		c.MTU = mtu
	default:
		return fmt.Errorf("unknown key %q (known: bridge, address, gateway, mac, mtu, interface)", key)
	}
	return nil
}

func setOnce(field *string, key, value string) error {
	if *field != "" {
		return fmt.Errorf("%s is given twice", key)
	}
	*field = value
	return nil
}

// Validate names the first thing in the configuration that no host could set up. It looks at no host: see CheckPeer.
func (c *Config) Validate() error {
	if c.Bridge == "" {
		return fmt.Errorf("bridge is missing")
	}
	if err := validName(c.Bridge); err != nil {
		return fmt.Errorf("bridge %q: %w", c.Bridge, err)
	}
	if err := validName(c.iface()); err != nil {
		return fmt.Errorf("interface %q: %w", c.Interface, err)
	}
	if c.iface() == "lo" {
		return fmt.Errorf("interface lo is the container's loopback")
	}
	if c.HostEnd != "" {
		if err := validName(c.HostEnd); err != nil {
			return fmt.Errorf("host end %q: %w", c.HostEnd, err)
		}
	}
	prefixes, err := c.prefixes()
	if err != nil {
		return err
	}
	if err := c.validGateways(prefixes); err != nil {
		return err
	}
	if err := c.validMTU(prefixes); err != nil {
		return err
	}
	if c.MAC != "" {
		_, err = parseMAC(c.MAC)
	}
	return err
}

// prefixes are the parsed Addresses; host bits are kept.
func (c *Config) prefixes() ([]netip.Prefix, error) {
	if len(c.Addresses) == 0 {
		return nil, fmt.Errorf("address is missing")
	}
	var prefixes []netip.Prefix
	for _, address := range c.Addresses {
		prefix, err := netip.ParsePrefix(address)
		if err != nil {
			return nil, fmt.Errorf("address %q is not a CIDR like 10.0.0.5/24", address)
		}
		ip := prefix.Addr()
		switch {
		case ip.Is4In6():
			return nil, fmt.Errorf("address %q: write the IPv4 address itself", address)
		case ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback():
			return nil, fmt.Errorf("address %q cannot be an interface's", address)
		case ip.Is4() && prefix.Bits() < 31 && (ip == prefix.Masked().Addr() || ip == broadcast(prefix)):
			return nil, fmt.Errorf("address %q is the network's or its broadcast address", address)
		}
		for _, other := range prefixes {
			if other.Addr() == ip {
				return nil, fmt.Errorf("address %q is given twice", address)
			}
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

// broadcast is the last address of an IPv4 prefix.
func broadcast(prefix netip.Prefix) netip.Addr {
	last := prefix.Masked().Addr().As4()
	for bit := prefix.Bits(); bit < 32; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(last)
}

func (c *Config) validGateways(prefixes []netip.Prefix) error {
	var seen []netip.Addr
	for _, text := range c.Gateways {
		gateway, err := netip.ParseAddr(text)
		if err != nil || gateway.Zone() != "" || gateway.Is4In6() {
			return fmt.Errorf("gateway %q is not an IP address", text)
		}
		if slices.ContainsFunc(seen, func(other netip.Addr) bool { return other.Is4() == gateway.Is4() }) {
			return fmt.Errorf("gateway %q: there is one of this family already", text)
		}
		seen = append(seen, gateway)
		if slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Addr() == gateway }) {
			return fmt.Errorf("gateway %q is the container's own address", text)
		}
		// A router's link-local address is on every IPv6 link, whatever the prefix.
		linkLocal := gateway.Is6() && gateway.IsLinkLocalUnicast()
		if !linkLocal && !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(gateway) }) {
			return fmt.Errorf("gateway %q is outside of %s", text, strings.Join(c.Addresses, ", "))
		}
	}
	return nil
}

func (c *Config) validMTU(prefixes []netip.Prefix) error {
	if c.MTU == 0 {
		return nil
	}
	least := minMTU
	if slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		least = minMTUIPv6
	}
	if c.MTU < least || c.MTU > maxMTU {
		return fmt.Errorf("mtu %d is out of range (%d to %d with these addresses)", c.MTU, least, maxMTU)
	}
	return nil
}

func (c *Config) iface() string {
	if c.Interface == "" {
		return DefaultInterface
	}
	return c.Interface
}

// validName is the kernel's dev_valid_name, and refuses '%' too: the kernel would fill in a number.
func validName(name string) error {
	if len(name) == 0 || len(name) > maxName {
		return fmt.Errorf("an interface's name has 1 to %d bytes", maxName)
	}
	if name == "." || name == ".." || strings.ContainsAny(name, "/:% \t\n\v\f\r\x00") {
		return fmt.Errorf("not a name for an interface")
	}
	return nil
}

func parseMAC(text string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("mac %q is not an address like 02:00:00:00:00:01", text)
	}
	if mac[0]&1 != 0 {
		return nil, fmt.Errorf("mac %q is a multicast address (its first byte is odd)", text)
	}
	if slices.Equal(mac, make([]byte, 6)) {
		return nil, fmt.Errorf("mac %q cannot be an interface's", text)
	}
	return mac, nil
}

// deriveMAC makes a locally administered address from what is unique on the link, so that it is the same on every host.
func deriveMAC(id string, addresses []string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(id + "\x00" + strings.Join(addresses, "\x00")))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^0x01 | 0x02
	return mac
}

// HostEndName is the name that Attach first tries for the host's end of the container's veth.
func HostEndName(id string) string {
	return hostEndName(id, 0)
}

// hostEndName hashes the id: ids may be longer than a name, and two that start alike must not meet.
func hostEndName(id string, attempt int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", id, attempt))
	return fmt.Sprintf("mg%x", sum[:6])
}

// hostEndMAC starts with fe: a bridge without an address of its own takes the lowest of its ports', and would change it,
// to the confusion of every neighbour, whenever a container joins or leaves.
func hostEndMAC(name string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(name))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = 0xfe
	return mac
}
