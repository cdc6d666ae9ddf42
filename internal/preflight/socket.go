package preflight

import (
	"syscall"
)

// judgeSockets finds sockets of kinds that CRIU cannot save. What unix sockets are connected to is judged for the whole
// container.
func (p *proc) judgeSockets() Findings {
	const mptcp, icmp6, udplite = 262, 58, 136 // IPPROTO_MPTCP, IPPROTO_ICMPV6, IPPROTO_UDPLITE
	var f Findings
	for i := range p.descriptors {
		d := &p.descriptors[i]
		switch d.domain {
		case 0, syscall.AF_UNIX, syscall.AF_NETLINK, syscall.AF_PACKET:
			continue
		case syscall.AF_INET, syscall.AF_INET6:
		default:
			f = append(f, p.finding(Blocker, SocketKind, "close it first", "has a socket of the address family %d (descriptor %d), which cannot be saved", d.domain, d.number))
			continue
		}
		switch {
		case d.protocol == mptcp:
			f = append(f, p.finding(Blocker, MPTCP, "run it with GODEBUG=multipathtcp=0 if it is a Go program", "has a socket of MPTCP (descriptor %d), which cannot be saved", d.number))
		case d.kind == syscall.SOCK_RAW:
		case d.kind != syscall.SOCK_STREAM && d.kind != syscall.SOCK_DGRAM:
			f = append(f, p.finding(Blocker, SocketKind, "close it first", "has an internet socket of type %d (descriptor %d), which cannot be saved", d.kind, d.number))
		default:
			switch d.protocol {
			case syscall.IPPROTO_IP, syscall.IPPROTO_TCP, syscall.IPPROTO_UDP, udplite, syscall.IPPROTO_ICMP, icmp6:
			default:
				f = append(f, p.finding(Blocker, SocketKind, "close it first", "has a socket of protocol %d (descriptor %d), which cannot be saved", d.protocol, d.number))
			}
		}
	}
	return f
}
