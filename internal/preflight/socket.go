package preflight

import (
	"strconv"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/sys/socket"
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

// unixPeer is the other end of a unix socket.
type unixPeer struct {
	inode string
	kind  int
	name  string // of the other end, where it has one
}

// unixPeers asks the kernel for the other ends of all connected unix sockets in the process's network namespace, by inode. A
// connection that was not accepted yet has no other end: the socket that it waits at stands for it, as it does with CRIU.
func unixPeers(pid int) (map[string]unixPeer, error) {
	ns, err := netns.OfProcess(pid)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	var sockets []socket.Unix
	if err := netns.Do(ns, func() (err error) {
		sockets, err = socket.ListUnix()
		return err
	}); err != nil {
		return nil, err
	}
	names := make(map[uint32]string)
	for _, s := range sockets {
		names[s.Inode] = s.Name
	}
	peers := make(map[string]unixPeer)
	for _, s := range sockets {
		if s.Peer != 0 {
			peers[decimal(s.Inode)] = unixPeer{inode: decimal(s.Peer), kind: s.Type, name: names[s.Peer]}
		}
		for _, client := range s.Waiting {
			peers[decimal(client)] = unixPeer{inode: decimal(s.Inode), kind: s.Type, name: s.Name}
		}
	}
	return peers, nil
}

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// judgeUnix finds unix connections that lead out of the container. inside are the inodes of all its sockets.
func (p *proc) judgeUnix(peers map[string]unixPeer, inside map[string]bool) Findings {
	var f Findings
	for i := range p.descriptors {
		d := &p.descriptors[i]
		peer, connected := peers[d.inode()]
		if d.domain != syscall.AF_UNIX || !connected || inside[peer.inode] {
			continue
		}
		switch peer.kind {
		case syscall.SOCK_DGRAM:
			f = append(f, p.finding(Warning, UnixSocket, "see that the peer has a socket of this name",
				"sends datagrams to a unix socket outside of the container%s (descriptor %d): it is connected anew at the peer", named(peer.name), d.number))
		default:
			f = append(f, p.finding(Blocker, UnixSocket, "close the connection first",
				"has a unix connection that leads out of the container%s (descriptor %d), which cannot be kept", named(peer.name), d.number))
		}
	}
	return f
}

func named(name string) string {
	if name == "" {
		return ""
	}
	return " to " + name
}

func (p *proc) hasUnix() bool {
	for i := range p.descriptors {
		if p.descriptors[i].domain == syscall.AF_UNIX {
			return true
		}
	}
	return false
}
