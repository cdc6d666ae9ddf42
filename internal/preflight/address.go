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

// addresses are those that the container's internet sockets are bound to, but for those that every host has. Connections count
// where they are to be kept.
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
	for _, s := range c.init().internet() {
		if inside[s.inode] && s.local.IsValid() && !s.local.IsUnspecified() && !s.local.IsLoopback() && (c.subject.Keeps || !s.connected) {
			all = append(all, s.local.String())
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// judgeConnections tells which processes have connections that the move closes.
func (c *container) judgeConnections() Findings {
	if !c.subject.Closes {
		return nil
	}
	connected := map[string]bool{}
	for _, s := range c.init().internet() {
		if s.connected {
			connected[s.inode] = true
		}
	}
	var f Findings
	for _, p := range c.processes {
		own := map[string]bool{}
		for i := range p.descriptors {
			if d := &p.descriptors[i]; d.domain != 0 && connected[d.inode()] {
				own[d.inode()] = true
			}
		}
		if len(own) > 0 {
			f = append(f, p.finding(Warning, Connections, "--tcp-established keeps them, if the address comes along",
				"has %d TCP connections, which the move closes", len(own)))
		}
	}
	return f
}

// internetSocket is a line of /proc/net/tcp and its like.
type internetSocket struct {
	local     netip.Addr
	inode     string
	connected bool // TCP, and neither listening nor closed
}

// internet lists the sockets in the process's network namespace.
func (p *proc) internet() []internetSocket { return internet(p.path("net/")) }

func internet(dir string) []internetSocket {
	var all []internetSocket
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := os.ReadFile(dir + table)
		if err != nil {
			continue // no such protocol
		}
		for line := range bytes.Lines(text) {
			if s := parseSocket(string(line)); s.inode != "" {
				s.connected = s.connected && strings.HasPrefix(table, "tcp")
				all = append(all, s)
			}
		}
	}
	return all
}

// parseSocket reads a line of /proc/net/tcp: the second field is the local address in hexadecimal digits, four bytes at a
// time in the order of the processor, the fourth the state, the tenth the inode.
func parseSocket(line string) (s internetSocket) {
	fields := strings.Fields(line)
	const local, state, number = 1, 3, 9
	if len(fields) <= number {
		return s
	}
	const closed, listening = "07", "0A" // net/tcp_states.h
	s.connected = fields[state] != closed && fields[state] != listening
	digits, _, _ := strings.Cut(fields[local], ":")
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw)%4 != 0 {
		return s
	}
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	address, _ := netip.AddrFromSlice(raw)
	s.local, s.inode = address.Unmap(), fields[number]
	return s
}
