package transport

import (
	"net"
	"net/netip"
	"sync"
)

// Strangers bounds the connections whose callers have not proved yet who they are. When there is no room for one more, the
// oldest goes of whichever address has the most: whoever holds connections open in silence only takes places from himself,
// and a caller that proves itself at once gets through however many others there are. It is safe for use by several goroutines.
type Strangers struct {
	most int

	mu      sync.Mutex
	waiting map[*stranger]struct{}
	coming  uint64
	origins map[string]int
}

type stranger struct {
	conn   net.Conn
	origin string
	number uint64 // in order of coming
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
	in := &stranger{conn: conn, origin: origin(conn.RemoteAddr()), number: s.coming}
	s.coming++
	s.waiting[in] = struct{}{}
	s.origins[in.origin]++
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.remove(in)
	}, dropped
}

// crowd is the oldest stranger of the address that has the most.
func (s *Strangers) crowd() *stranger {
	var out *stranger
	for w := range s.waiting {
		if out == nil || s.origins[w.origin] > s.origins[out.origin] ||
			s.origins[w.origin] == s.origins[out.origin] && w.number < out.number {
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
	if s.origins[w.origin]--; s.origins[w.origin] == 0 {
		delete(s.origins, w.origin)
	}
	return true
}

// origin is what one caller can't have many of: an IPv4 address, or a /64 of IPv6.
func origin(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	port, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return addr.Network() // of a unix socket
	}
	ip := port.Addr().Unmap()
	if ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return ip.String()
	}
	return prefix.String()
}
