package link

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

// The kernel drops a message whose checksums or quoted segment are wrong, without a word.
func TestHostUnreachableQuotesTheSegmentThatTheRemoteSends(t *testing.T) {
	message := hostUnreachable(Stalled{
		Local:   netip.MustParseAddrPort("10.0.0.2:6379"),
		Remote:  netip.MustParseAddrPort("10.0.0.9:40000"),
		Expects: 0x01020304,
	})
	if sum := checksum(message); sum != 0 {
		t.Errorf("the message's checksum is off by %#x", sum)
	}
	quoted := message[8:]
	if sum := checksum(quoted[:20]); sum != 0 {
		t.Errorf("the quoted header's checksum is off by %#x", sum)
	}
	if !bytes.Equal(quoted[12:20], []byte{10, 0, 0, 9, 10, 0, 0, 2}) {
		t.Errorf("quoted addresses: %v", quoted[12:20])
	}
	tcp := quoted[20:]
	if len(tcp) != 8 || binary.BigEndian.Uint16(tcp) != 40000 || binary.BigEndian.Uint16(tcp[2:]) != 6379 {
		t.Errorf("quoted ports: %v", tcp)
	}
	if got := binary.BigEndian.Uint32(tcp[4:]); got != 0x01020304 {
		t.Errorf("quoted sequence number: %#x", got)
	}
}
