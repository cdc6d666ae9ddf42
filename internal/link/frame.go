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
	neighbourAdvertisement = 136
	naFlagOverride         = 1 << 29 // the neighbour replaces the address it has
	optionTargetLinkLayer  = 2
	ndpHopLimit            = 255 // anything less has passed a router, and is dropped (RFC 4861)
)

// arpFrame is a gratuitous ARP (RFC 5227, section 3): sender and target are both ip, so that neighbours that have it in
// their cache update it. To everybody.
//
//	| ethernet 14 | hw type 2 | proto 2 | 6 | 4 | op 2 | sender mac 6 | sender ip 4 | target mac 6 | target ip 4 |
func arpFrame(op uint16, mac net.HardwareAddr, ip netip.Addr) []byte {
	everybody := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	target := make([]byte, 6) // of no meaning in a request
	if op == arpReply {
		target = mac
	}
	frame := ethernetHeader(everybody, mac, etherTypeARP)
	frame = binary.BigEndian.AppendUint16(frame, 1) // ethernet
	frame = binary.BigEndian.AppendUint16(frame, 0x0800)
	frame = append(frame, 6, 4)
	frame = binary.BigEndian.AppendUint16(frame, op)
	frame = append(frame, mac...)
	frame = append(frame, ip.AsSlice()...)
	frame = append(frame, target...)
	return append(frame, ip.AsSlice()...)
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
	binary.BigEndian.PutUint16(message[2:], icmpv6Checksum(ip, allNodes, message))

	frame := ethernetHeader(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, mac, etherTypeIPv6)
	frame = binary.BigEndian.AppendUint32(frame, 6<<28)
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(message)))
	frame = append(frame, protocolICMPv6, ndpHopLimit)
	frame = append(frame, ip.AsSlice()...)
	frame = append(frame, allNodes.AsSlice()...)
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
	var sum uint32
	for i := 0; i < len(summed); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(summed[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
