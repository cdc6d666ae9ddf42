package transport

import "net"

// Bytes is the preamble as it stands on the wire, for Handed.
func (p Preamble) Bytes() []byte { return p.append(nil) }

// Handed is a unix connection that another process has accepted, authenticated and read the preamble of. Reading it begins
// with opening, which is that preamble, so that a Hub takes it like any other. It owns conn.
func Handed(conn *net.UnixConn, opening []byte) net.Conn {
	return &handedConn{UnixConn: conn, opening: opening}
}

// handedConn embeds the connection to keep its writev.
type handedConn struct {
	*net.UnixConn
	opening []byte
}

func (c *handedConn) Read(b []byte) (int, error) {
	if len(c.opening) == 0 {
		return c.UnixConn.Read(b)
	}
	n := copy(b, c.opening)
	c.opening = c.opening[n:]
	return n, nil
}
