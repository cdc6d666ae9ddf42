package transport

import (
	"cmp"
	"net"
	"net/netip"
	"sync"
)

// Strangers bounds the connections whose callers have not proved yet who they are. When there is no room for one more, one goes
// of whichever address has the most, among equals of whichever network, and of those the oldest: whoever holds connections open
// in silence takes places from himself, and whoever has many addresses in one network takes them from that. Against callers from
// more networks than there are places nothing helps but to be quick. It is safe for use by several goroutines.
type Strangers struct {
	most int

	mu      sync.Mutex
	waiting map[*stranger]struct{}
	coming  uint64
	origins map[string]int // how many are in, by address and by network
}

type stranger struct {
	conn    net.Conn
	origin  string
	network string
	number  uint64 // in order of coming
}

// NewStrangers makes room for so many.
func NewStrangers(most int) *Strangers {
	return &Strangers{most: most, waiting: map[*stranger]struct{}{}, origins: map[string]int{}}
}

// Enter takes a connection in, and closes another one when there is no room; dropped is that one's address, else nil. leave
// must be called once its caller is known, or the connection is closed; it tells whether the connection was still in.
func (s *Strangers) Enter(conn net.Conn) (leave func() bool, dropped net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) >= s.most {
		out := s.crowd()
		s.remove(out)
		dropped = out.conn.RemoteAddr()
		abort(out.conn) // whoever reads from it learns that way
	}
	in := &stranger{conn: conn, number: s.coming}
	in.origin, in.network = origin(conn.RemoteAddr())
	s.coming++
	s.waiting[in] = struct{}{}
	s.origins[in.origin]++
	s.origins[in.network]++
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.remove(in)
	}, dropped
}

// crowd is the oldest stranger of the address, and then the network, that has the most.
func (s *Strangers) crowd() *stranger {
	var out *stranger
	for w := range s.waiting {
		if out == nil || cmp.Or(
			cmp.Compare(s.origins[w.origin], s.origins[out.origin]),
			cmp.Compare(s.origins[w.network], s.origins[out.network]),
			cmp.Compare(out.number, w.number),
		) > 0 {
			out = w
		}
	}
	return out
}

func (s *Strangers) remove(w *stranger) bool {
	if _, in := s.waiting[w]; !in {
		return false
	}
	delete(s.waiting, w)
	for _, from := range []string{w.origin, w.network} {
		if s.origins[from]--; s.origins[from] == 0 {
			delete(s.origins, from)
		}
	}
	return true
}

// origin is what one caller can't have many of, an IPv4 address or a /64 of IPv6, and the network that it is given out of: a /24
// or a /48.
func origin(addr net.Addr) (address, network string) {
	if addr == nil {
		return "", ""
	}
	port, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return addr.Network(), "" // of a unix socket
	}
	ip := port.Addr().Unmap()
	own, wide := 64, 48
	if ip.Is4() {
		own, wide = 32, 24
	}
	return prefix(ip, own), prefix(ip, wide)
}

// prefix is the network of so many bits around an address.
func prefix(ip netip.Addr, bits int) string {
	p, _ := ip.Prefix(bits) // fails for more bits than it has
	return p.String()
}
