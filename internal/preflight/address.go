package preflight

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// addresses are those that the container's internet sockets are bound to, but for those that every host has.
func (c *container) addresses() []string {
	inside := make(map[string]bool)
	for _, p := range c.processes {
		for i := range p.descriptors {
			if p.descriptors[i].domain != 0 {
				inside[p.descriptors[i].inode()] = true
			}
		}
	}
	var all []string
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := os.ReadFile(c.init().path("net/" + table))
		if err != nil {
			continue // no such protocol
		}
		for line := range bytes.Lines(text) {
			if address, inode := parseSocket(string(line)); inside[inode] && address.IsValid() && !address.IsUnspecified() && !address.IsLoopback() {
				all = append(all, address.String())
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// parseSocket reads a line of /proc/net/tcp: the second field is the local address in hexadecimal digits, four bytes at a
// time in the order of the processor, the tenth the inode.
func parseSocket(line string) (address netip.Addr, inode string) {
	fields := strings.Fields(line)
	const local, number = 1, 9
	if len(fields) <= number {
		return netip.Addr{}, ""
	}
	digits, _, _ := strings.Cut(fields[local], ":")
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw)%4 != 0 {
		return netip.Addr{}, ""
	}
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	address, _ = netip.AddrFromSlice(raw)
	return address.Unmap(), fields[number]
}
