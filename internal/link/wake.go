package link

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/netns"
)

// Stalled is a TCP connection whose other end has been sending to nobody.
type Stalled struct {
	Local, Remote netip.AddrPort // Local is the container's
	Expects       uint32         // sequence number of the byte that the container wants next
}

// wakeTimes is how many doublings of the remote's retransmission timer are taken back: 8 of them are 200 ms to 50 s.
const wakeTimes = 8

// Wake makes the other ends of connections try again soon. While the link was off its bridge they retransmitted into the
// void, and doubled their timer each time: after two seconds' absence the next attempt may be three seconds away, and that
// would be part of the gap. An ICMP "host unreachable" about the segment that they wait for takes one doubling back, and
// sends at once when the shorter time is over: that is RFC 6069, section 4, in Linux since 2.6.32 (tcp_ld_RTO_revert).
// Others take it for the hint that it is and do nothing; no established connection ends by it (RFC 5927, section 6.1).
//
// Call it after Announce. Connections of IPv6, and those whose local address is not the link's, are left alone.
func (l *Link) Wake(ctx context.Context, connections []Stalled) error {
	return Wake(ctx, l.ns, connections)
}

// Wake is that for any network namespace.
func Wake(ctx context.Context, ns *os.File, connections []Stalled) error {
	if len(connections) == 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	var socket net.PacketConn
	err := netns.Do(ns, func() (err error) {
		socket, err = new(net.ListenConfig).ListenPacket(ctx, "ip4:icmp", "")
		return err
	})
	if err != nil {
		return fmt.Errorf("wake connections: %w", err)
	}
	defer socket.Close()
	var failed error
	for _, c := range connections {
		if !c.Local.Addr().Is4() || !c.Remote.Addr().Is4() {
			continue
		}
		message := hostUnreachable(c)
		for range wakeTimes {
			if _, err := socket.WriteTo(message, &net.IPAddr{IP: c.Remote.Addr().AsSlice()}); err != nil {
				failed = fmt.Errorf("wake connection with %s: %w", c.Remote, err)
				break // the others may have a way
			}
		}
	}
	return failed
}

// hostUnreachable is an ICMP message (RFC 792) about the segment that the remote keeps sending:
//
//	| type 3, code 1, checksum 2, unused 4 | its IP header 20 | its ports 4, sequence number 4 |
func hostUnreachable(c Stalled) []byte {
	const destinationUnreachable, host = 3, 1
	message := []byte{destinationUnreachable, host, 0, 0, 0, 0, 0, 0}
	message = append(message, 0x45, 0)
	message = binary.BigEndian.AppendUint16(message, 40) // length: the headers
	message = append(message, 0, 0, 0x40, 0, 64, syscall.IPPROTO_TCP, 0, 0)
	message = append(message, c.Remote.Addr().AsSlice()...)
	message = append(message, c.Local.Addr().AsSlice()...)
	message = binary.BigEndian.AppendUint16(message, c.Remote.Port())
	message = binary.BigEndian.AppendUint16(message, c.Local.Port())
	message = binary.BigEndian.AppendUint32(message, c.Expects)
	const ip, ipChecksum = 8, 8 + 10
	binary.BigEndian.PutUint16(message[ipChecksum:], checksum(message[ip:ip+20]))
	binary.BigEndian.PutUint16(message[2:], checksum(message))
	return message
}
