package identity

import (
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/packet"

	"github.com/livemigrate/migrate/internal/sys/netns"
)

// owners asks the whole network who has an IPv4 address, and counts the hardware addresses that answer.
func (w *world) owners(address string) int {
	w.t.Helper()
	const arp = 0x0806
	var conn *packet.Conn
	var mac net.HardwareAddr
	ns, err := netns.OfProcess(w.C.Holder())
	if err != nil {
		w.t.Fatal(err)
	}
	defer ns.Close()
	err = netns.Do(ns, func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		mac = ifi.HardwareAddr
		conn, err = packet.Listen(ifi, packet.Raw, arp, nil)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	everybody := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	wanted := netip.MustParseAddr(address).As4()
	question := append(append(append([]byte{}, everybody...), mac...), 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
	question = append(append(append(append(append(question, mac...), 0, 0, 0, 0), make([]byte, 6)...), wanted[:]...), make([]byte, 18)...)
	if _, err := conn.WriteTo(question, &packet.Addr{HardwareAddr: everybody}); err != nil {
		w.t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	found := map[string]bool{}
	for frame := make([]byte, 128); ; {
		n, _, err := conn.ReadFrom(frame)
		if err != nil {
			return len(found)
		}
		// Ethernet header 14, then: kinds 8 (the last byte 2 in a reply), sender's hardware and protocol address.
		if n >= 42 && frame[21] == 2 && netip.AddrFrom4([4]byte(frame[28:32])) == netip.AddrFrom4(wanted) {
			found[net.HardwareAddr(frame[22:28]).String()] = true
		}
	}
}
