package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/packet"

	"github.com/livemigrate/migrate/internal/sys/netns"
)

// announceAgain are the times, after the first announcement, of its repetitions: a switch or a neighbour may lose a frame.
var announceAgain = [...]time.Duration{50 * time.Millisecond, 200 * time.Millisecond}

// Announce tells the network where the container's addresses are: gratuitous ARP as request and as reply (some
// neighbours heed only one), and unsolicited neighbour advertisements. When it returns the frames are sent once, and
// every switch on their way has learned the port. They are repeated in the background until ctx is done, 200 ms later
// at the latest. Call it after Join; it needs no process in the namespace to be running.
func (l *Link) Announce(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	conn, frames, err := l.openAnnouncement()
	if err != nil {
		return fmt.Errorf("announce %q: %w", l.config.HostEnd, err)
	}
	if err := send(conn, frames); err != nil {
		return errors.Join(fmt.Errorf("announce %q: %w", l.config.HostEnd, err), conn.Close())
	}
	go repeat(ctx, conn, frames)
	return nil
}

// openAnnouncement makes the frames, and a raw socket on the container's end. A socket stays in the namespace that it was
// made in, so the repetitions need not enter it.
func (l *Link) openAnnouncement() (conn *packet.Conn, frames [][]byte, err error) {
	prefixes, err := l.config.prefixes()
	if err != nil {
		return nil, nil, err
	}
	err = netns.Do(l.ns, func() error {
		ifi, err := net.InterfaceByName(l.config.iface())
		if err != nil {
			return fmt.Errorf("find %q in the container's network namespace: %w", l.config.iface(), err)
		}
		for _, prefix := range prefixes {
			frames = append(frames, announcements(ifi.HardwareAddr, prefix.Addr())...)
		}
		conn, err = packet.Listen(ifi, packet.Raw, 0, nil) // protocol 0: it receives nothing
		return err
	})
	return conn, frames, err
}

func announcements(mac net.HardwareAddr, ip netip.Addr) [][]byte {
	if ip.Is4() {
		return [][]byte{arpFrame(arpRequest, mac, ip), arpFrame(arpReply, mac, ip)}
	}
	return [][]byte{advertisementFrame(mac, ip)}
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
