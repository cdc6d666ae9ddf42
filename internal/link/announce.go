package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"

	"github.com/livemigrate/migrate/internal/sys/netns"
)

// announceAgain are the times, after the first announcement, of its repetitions: a switch or a neighbour may lose a frame.
var announceAgain = [...]time.Duration{50 * time.Millisecond, 200 * time.Millisecond}

// Announce tells the network where the container's addresses are: gratuitous ARP as request and as reply (some
// neighbours heed only one), and unsolicited neighbour advertisements. It also asks again for the neighbours that the
// container waits for: what it sent before Join, a restored connection's first segment for one, is held until they answer,
// and the kernel itself asks once a second. When it returns the frames are sent once, and
// every switch on their way has learned the port. They are repeated in the background until ctx is done, 200 ms later
// at the latest. Call it after Join; it needs no process in the namespace to be running.
func (l *Link) Announce(ctx context.Context) error {
	prefixes, err := l.config.prefixes()
	if err != nil {
		return fmt.Errorf("announce %q: %w", l.config.HostEnd, err)
	}
	return Announce(ctx, l.ns, l.config.iface(), prefixes)
}

// Announce is that for any Ethernet interface of a network namespace, and the addresses that it has.
func Announce(ctx context.Context, ns *os.File, name string, prefixes []netip.Prefix) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	conn, frames, err := openAnnouncement(ns, name, prefixes)
	if err != nil {
		return fmt.Errorf("announce %q: %w", name, err)
	}
	if err := send(conn, frames); err != nil {
		return errors.Join(fmt.Errorf("announce %q: %w", name, err), conn.Close())
	}
	go repeat(ctx, conn, frames)
	return nil
}

// openAnnouncement makes the frames, and a raw socket on the container's end. A socket stays in the namespace that it was
// made in, so the repetitions need not enter it.
func openAnnouncement(ns *os.File, name string, prefixes []netip.Prefix) (conn *packet.Conn, frames [][]byte, err error) {
	err = netns.Do(ns, func() error {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return fmt.Errorf("find %q in the container's network namespace: %w", name, err)
		}
		for _, prefix := range prefixes {
			frames = append(frames, announcements(ifi.HardwareAddr, prefix.Addr())...)
		}
		questions, err := questions(ifi, prefixes)
		if err != nil {
			return err
		}
		frames = append(frames, questions...)
		conn, err = packet.Listen(ifi, packet.Raw, 0, nil) // protocol 0: it receives nothing
		return err
	})
	return conn, frames, err
}

func announcements(mac net.HardwareAddr, ip netip.Addr) [][]byte {
	if ip.Is4() {
		return [][]byte{announcementFrame(arpRequest, mac, ip), announcementFrame(arpReply, mac, ip)}
	}
	return [][]byte{advertisementFrame(mac, ip)}
}

// questions asks for every neighbour on the interface whose answer the kernel of this network namespace waits for. The
// answer goes to the kernel, like any other.
func questions(ifi *net.Interface, prefixes []netip.Prefix) (frames [][]byte, err error) {
	neighbours, err := netlink.NeighList(ifi.Index, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range neighbours {
		ip, ok := netip.AddrFromSlice(n.IP)
		if ip = ip.Unmap(); !ok || n.State != netlink.NUD_INCOMPLETE {
			continue
		}
		from, ok := addressTowards(ip, prefixes)
		switch {
		case !ok:
		case ip.Is4():
			frames = append(frames, whoHasFrame(ifi.HardwareAddr, from, ip))
		default:
			frames = append(frames, solicitationFrame(ifi.HardwareAddr, from, ip))
		}
	}
	return frames, nil
}

// addressTowards is the container's address that a neighbour knows it by: of the same network, or any of the same family.
func addressTowards(ip netip.Addr, prefixes []netip.Prefix) (from netip.Addr, ok bool) {
	for _, prefix := range prefixes {
		if prefix.Contains(ip) {
			return prefix.Addr(), true
		}
		if prefix.Addr().Is4() == ip.Is4() && !ok {
			from, ok = prefix.Addr(), true
		}
	}
	return from, ok
}

func send(conn *packet.Conn, frames [][]byte) error {
	for _, frame := range frames {
		destination := net.HardwareAddr(frame[:6])
		if _, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: destination}); err != nil {
			return fmt.Errorf("send frame to %s: %w", destination, err)
		}
	}
	return nil
}

// repeat gives up at the first error: the interface has gone, and whoever removed it knows.
func repeat(ctx context.Context, conn *packet.Conn, frames [][]byte) {
	defer conn.Close()
	start := time.Now()
	for _, at := range announceAgain {
		select {
		case <-ctx.Done():
			return
		case <-time.After(at - time.Since(start)):
		}
		if send(conn, frames) != nil {
			return
		}
	}
}
