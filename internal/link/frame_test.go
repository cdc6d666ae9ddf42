package link

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"testing"
)

// The expected bytes are written from the RFCs, with the checksum of another implementation.
func TestFramesAreAsTheRFCsDrawThem(t *testing.T) {
	mac := net.HardwareAddr{0x02, 0, 0, 0, 0, 0x05}
	tests := map[string]struct{ got, want []byte }{
		"ARP request": {
			announcementFrame(arpRequest, mac, netip.MustParseAddr("10.0.0.5")),
			unhex("ffffffffffff 020000000005 0806 0001 0800 06 04 0001 020000000005 0a000005 000000000000 0a000005"),
		},
		"ARP reply": {
			announcementFrame(arpReply, mac, netip.MustParseAddr("10.0.0.5")),
			unhex("ffffffffffff 020000000005 0806 0001 0800 06 04 0002 020000000005 0a000005 020000000005 0a000005"),
		},
		"ARP question": {
			whoHasFrame(mac, netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.0.9")),
			unhex("ffffffffffff 020000000005 0806 0001 0800 06 04 0001 020000000005 0a000005 000000000000 0a000009"),
		},
		"neighbour solicitation": {
			solicitationFrame(mac, netip.MustParseAddr("fd00::5"), netip.MustParseAddr("fd00::12:3456")),
			unhex("3333ff123456 020000000005 86dd 60000000 0020 3a ff" +
				"fd000000000000000000000000000005 ff0200000000000000000001ff123456" +
				"87 00 14c3 00000000 fd000000000000000000000000123456 01 01 020000000005"),
		},
		"neighbour advertisement": {
			advertisementFrame(mac, netip.MustParseAddr("fd00::5")),
			unhex("333300000001 020000000005 86dd 60000000 0020 3a ff" +
				"fd000000000000000000000000000005 ff020000000000000000000000000001" +
				"88 00 5a8f 20000000 fd000000000000000000000000000005 02 01 020000000005"),
		},
	}
	for name, test := range tests {
		if !bytes.Equal(test.got, test.want) {
			t.Errorf("%s:\ngot  %x\nwant %x", name, test.got, test.want)
		}
	}
}

func unhex(text string) []byte {
	raw, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(text), []byte(" "), nil)))
	if err != nil {
		panic(err)
	}
	return raw
}
