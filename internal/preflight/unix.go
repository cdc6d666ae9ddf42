package preflight

import (
	"context"
	"errors"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/sys/socket"
)

// Processes are read one after the other, and their connections after that, while they run: what was made, passed on or closed
// in between seems to lead out of the container. A web server and its workers do that hundreds of times a second. So a connection
// counts if it is still there, and still leads out, when all are looked at again, and more than once.
const (
	outsideLooks = 3
	betweenLooks = 20 * time.Millisecond
)

// lead is a unix connection with one end in the container.
type lead struct {
	inode, other string
	finding      Finding
}

// blocks: it is worth more looks than one.
func (l lead) blocks() bool { return l.finding.Severity == Blocker }

// judgeUnix finds those whose other end is outside.
func (c *container) judgeUnix(ctx context.Context) (Findings, error) {
	leads, err := c.outward()
	for range outsideLooks {
		if err != nil || !slices.ContainsFunc(leads, lead.blocks) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(betweenLooks):
		}
		var later []lead
		if later, err = c.again(ctx); err != nil {
			break
		}
		leads = slices.DeleteFunc(leads, func(l lead) bool {
			return l.blocks() && !slices.ContainsFunc(later, func(o lead) bool { return o.inode == l.inode && o.other == l.other })
		})
	}
	var f Findings
	for _, l := range leads {
		f = append(f, l.finding)
	}
	return f, err
}

// again is outward, of all processes as they are now. Of each no more is read than that takes.
func (c *container) again(ctx context.Context) ([]lead, error) {
	pids := c.subject.Pids
	if c.subject.Now != nil {
		var err error
		if pids, err = c.subject.Now(); err != nil {
			return nil, err
		}
	}
	processes := make([]*proc, len(pids))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, pid := range pids {
		group.Go(func() (err error) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if processes[i], err = readConnections(pid); errors.Is(err, errEnded) {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	processes = slices.DeleteFunc(processes, func(p *proc) bool { return p == nil })
	return (&container{subject: c.subject, processes: processes}).outward()
}

// readConnections reads what outward asks about.
func readConnections(pid int) (*proc, error) {
	p := &proc{pid: pid}
	network, err := os.Readlink(p.path("ns/net"))
	if err != nil {
		return nil, ended(err)
	}
	p.namespaces = map[string]string{"net": network}
	if p.descriptors, err = readDescriptors(pid); err != nil {
		return nil, ended(err)
	}
	return p, nil
}

func (c *container) outward() ([]lead, error) {
	inside := make(map[string]bool)
	spaces := make(map[string][]*proc) // by network namespace
	for _, p := range c.processes {
		for i := range p.descriptors {
			if d := &p.descriptors[i]; d.domain != 0 {
				inside[d.inode()] = true
			}
		}
		spaces[p.namespaces["net"]] = append(spaces[p.namespaces["net"]], p)
	}
	var leads []lead
	for _, space := range slices.Sorted(maps.Keys(spaces)) {
		members := spaces[space]
		if !slices.ContainsFunc(members, (*proc).hasUnix) {
			continue
		}
		peers, err := peersOfAny(members)
		if err != nil {
			return nil, err
		}
		for _, p := range members {
			leads = append(leads, p.outward(peers, inside)...)
		}
	}
	return leads, nil
}

// peersOfAny are the unixPeers in the network namespace that all members are in: by the first that has not ended meanwhile.
func peersOfAny(members []*proc) (map[string]unixPeer, error) {
	for _, p := range members {
		peers, err := unixPeers(p.pid)
		if err == nil {
			return peers, nil
		}
		if now, gone := readProcess(p.pid); !errors.Is(gone, errEnded) && (gone != nil || now.state != 'Z') {
			return nil, err
		}
	}
	return nil, nil
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

// outward are the process's. inside are the inodes of all the container's sockets.
func (p *proc) outward(peers map[string]unixPeer, inside map[string]bool) []lead {
	var leads []lead
	for i := range p.descriptors {
		d := &p.descriptors[i]
		peer, connected := peers[d.inode()]
		if d.domain != syscall.AF_UNIX || !connected || inside[peer.inode] {
			continue
		}
		l := lead{inode: d.inode(), other: peer.inode}
		switch peer.kind {
		case syscall.SOCK_DGRAM:
			l.finding = p.finding(Warning, UnixSocket, "see that the peer has a socket of this name",
				"sends datagrams to a unix socket outside of the container%s (descriptor %d): it is connected anew at the peer", named(peer.name), d.number)
		default:
			l.finding = p.finding(Blocker, UnixSocket, "close the connection first",
				"has a unix connection that leads out of the container%s (descriptor %d), which cannot be kept", named(peer.name), d.number)
		}
		leads = append(leads, l)
	}
	return leads
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
