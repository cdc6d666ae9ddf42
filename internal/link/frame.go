package link

import (
	"encoding/binary"
	"net"
	"net/netip"
)

const (
	etherTypeARP  = 0x0806
	etherTypeIPv6 = 0x86dd

	arpRequest = 1
	arpReply   = 2

	protocolICMPv6         = 58
	neighbourSolicitation  = 135
	neighbourAdvertisement = 136
	naFlagOverride         = 1 << 29 // the neighbour replaces the address it has
	optionSourceLinkLayer  = 1
	optionTargetLinkLayer  = 2
	ndpHopLimit            = 255 // anything less has passed a router, and is dropped (RFC 4861)
)

// announcementFrame is a gratuitous ARP (RFC 5227, section 3): sender and target are both ip, so that neighbours that have
// it in their cache update it. To everybody.
func announcementFrame(op uint16, mac net.HardwareAddr, ip netip.Addr) []byte {
	target := make(net.HardwareAddr, 6) // of no meaning in a request
	if op == arpReply {
		target = mac
	}
	return arpFrame(op, mac, ip, target, ip)
}

// whoHasFrame is an ARP request of from for ip, to everybody.
func whoHasFrame(mac net.HardwareAddr, from, ip netip.Addr) []byte {
	return arpFrame(arpRequest, mac, from, make(net.HardwareAddr, 6), ip)
}

// arpFrame is an ARP message to everybody (RFC 826).
//
//	| ethernet 14 | hw type 2 | proto 2 | 6 | 4 | op 2 | sender mac 6 | sender ip 4 | target mac 6 | target ip 4 |
func arpFrame(op uint16, mac net.HardwareAddr, ip netip.Addr, targetMAC net.HardwareAddr, target netip.Addr) []byte {
	everybody := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	frame := ethernetHeader(everybody, mac, etherTypeARP)
	frame = binary.BigEndian.AppendUint16(frame, 1) // ethernet
	frame = binary.BigEndian.AppendUint16(frame, 0x0800)
	frame = append(frame, 6, 4)
	frame = binary.BigEndian.AppendUint16(frame, op)
	frame = append(frame, mac...)
	frame = append(frame, ip.AsSlice()...)
	frame = append(frame, targetMAC...)
	return append(frame, target.AsSlice()...)
}

// advertisementFrame is an unsolicited neighbour advertisement (RFC 4861, section 4.4) to all nodes.
//
//	| ethernet 14 | IPv6 40 | type 1, code 1, checksum 2, flags 4, target 16 | option 2, 1 (x 8 bytes), mac 6 |
func advertisementFrame(mac net.HardwareAddr, ip netip.Addr) []byte {
	allNodes := netip.IPv6LinkLocalAllNodes()

	message := []byte{neighbourAdvertisement, 0, 0, 0}
	message = binary.BigEndian.AppendUint32(message, naFlagOverride)
	message = append(message, ip.AsSlice()...)
	message = append(message, optionTargetLinkLayer, 1)
	message = append(message, mac...)
	return ndpFrame(mac, ip, allNodes, message)
}

// solicitationFrame is a neighbour solicitation (RFC 4861, section 4.3) of from for ip, to the multicast address that ip's
// holder listens on (RFC 4291, section 2.7.1).
//
//	| ethernet 14 | IPv6 40 | type 1, code 1, checksum 2, reserved 4, target 16 | option 1, 1 (x 8 bytes), mac 6 |
func solicitationFrame(mac net.HardwareAddr, from, ip netip.Addr) []byte {
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	last := ip.As16()
	copy(group[13:], last[13:])

	message := []byte{neighbourSolicitation, 0, 0, 0, 0, 0, 0, 0}
	message = append(message, ip.AsSlice()...)
	message = append(message, optionSourceLinkLayer, 1)
	message = append(message, mac...)
	return ndpFrame(mac, from, netip.AddrFrom16(group), message)
}

// ndpFrame completes a message, whose checksum is still zero, to a multicast address.
func ndpFrame(mac net.HardwareAddr, from, to netip.Addr, message []byte) []byte {
	binary.BigEndian.PutUint16(message[2:], icmpv6Checksum(from, to, message))
	group := to.As16()
	frame := ethernetHeader(append(net.HardwareAddr{0x33, 0x33}, group[12:]...), mac, etherTypeIPv6)
	frame = binary.BigEndian.AppendUint32(frame, 6<<28)
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(message)))
	frame = append(frame, protocolICMPv6, ndpHopLimit)
	frame = append(frame, from.AsSlice()...)
	frame = append(frame, to.AsSlice()...)
	return append(frame, message...)
}

func ethernetHeader(to, from net.HardwareAddr, etherType uint16) []byte {
	frame := append(append(make([]byte, 0, 96), to...), from...)
	return binary.BigEndian.AppendUint16(frame, etherType)
}

// icmpv6Checksum is the internet checksum over the pseudo header of RFC 8200, section 8.1, and the message, which has an
// even length and a zero checksum.
func icmpv6Checksum(from, to netip.Addr, message []byte) uint16 {
	summed := append(from.AsSlice(), to.AsSlice()...)
	summed = binary.BigEndian.AppendUint32(summed, uint32(len(message)))
	summed = binary.BigEndian.AppendUint32(summed, protocolICMPv6)
	summed = append(summed, message...)
	return checksum(summed)
}

// checksum is the internet checksum (RFC 1071) over an even number of bytes, the checksum's own place being zero.
func checksum(summed []byte) uint16 {
	var sum uint32
	for i := 0; i < len(summed); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(summed[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
