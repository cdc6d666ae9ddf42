package transport_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/livemigrate/migrate/transport"
)

// addressed is a connection from somewhere that remembers whether it was closed.
type addressed struct {
	net.Conn
	from   net.TCPAddr
	closed bool
}

func (a *addressed) RemoteAddr() net.Addr { return &a.from }
func (a *addressed) Close() error         { a.closed = true; return nil }

// Whoever fills the room gets no place of anybody else's, and does not keep the next one out.
func TestStrangersOfOneAddressTakeNobodyElsesPlace(t *testing.T) {
	s := transport.NewStrangers(4)
	enter := func(ip string) (*addressed, func() bool) {
		conn := &addressed{from: net.TCPAddr{IP: net.ParseIP(ip), Port: 1}}
		leave, _ := s.Enter(conn)
		return conn, leave
	}
	honest, leave := enter("10.0.0.1")
	var flood []*addressed
	for range 100 {
		conn, _ := enter("10.6.6.6")
		flood = append(flood, conn)
	}
	same, _ := enter("::ffff:10.6.6.6") // the flood's address in another guise
	if honest.closed || same.closed {
		t.Error("the flood has put out the oldest of another address, or the newest of its own")
	}
	for i, conn := range flood {
		if want := i < 98; conn.closed != want {
			t.Errorf("caller %d of the flood: closed %v, want %v", i, conn.closed, want)
		}
	}
	second, leaveSecond := enter("2001:db8::1")
	third, _ := enter("2001:db8::2") // one /64 is one caller
	if second.closed || third.closed || honest.closed {
		t.Error("callers of other addresses were put out while the flood had two places")
	}
	fourth, _ := enter("2001:db8::3")
	if !second.closed || fourth.closed || honest.closed {
		t.Error("the most of one /64 did not give way")
	}
	if leaveSecond() {
		t.Error("a caller that was put out thinks it is still in")
	}
	if !leave() || leave() {
		t.Error("leaving counts once")
	}
}

// Nor does whoever has a network of addresses, each of which has one place.
func TestStrangersOfOneNetworkTakeNobodyElsesPlace(t *testing.T) {
	for name, many := range map[string]func(i int) string{
		"a /48": func(i int) string { return fmt.Sprintf("2001:db8:6:%x::1", i) },
		"a /24": func(i int) string { return fmt.Sprintf("10.6.6.%d", i) },
	} {
		s := transport.NewStrangers(4)
		enter := func(ip string) *addressed {
			conn := &addressed{from: net.TCPAddr{IP: net.ParseIP(ip), Port: 1}}
			s.Enter(conn)
			return conn
		}
		honest := []*addressed{enter("10.0.0.1"), enter("2001:db8:1::1")}
		var last *addressed
		for i := range 100 {
			last = enter(many(i))
		}
		if honest[0].closed || honest[1].closed || last.closed {
			t.Errorf("%s takes the places of others, or its newest comes to nothing", name)
		}
	}
}
