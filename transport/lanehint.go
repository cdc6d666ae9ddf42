package transport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/livemigrate/migrate/internal/sys/socket"
)

// A lane of a tls:// session says in its first, readable TLS message whose it is: as an application protocol (ALPN, RFC
// 7301) with the public name of its session. A listener can so hand the connection to the process that owns the session,
// which makes the handshake itself, and no byte of a bulk transfer passes through a third process. Nothing is believed
// because of it: who the caller is comes out of the handshake, and that it has the token out of the preamble.
const laneProtocol = "migrate-lane/"

// PublicName names the session to everybody and gives nothing of the token away.
func (t Token) PublicName() string {
	sum := sha256.Sum256(t[:])
	return hex.EncodeToString(sum[:12])
}

// dialLane is DialConn for a lane of a session.
func (d *tlsDialer) dialLane(ctx context.Context, t Token) (net.Conn, error) {
	lane := *d
	lane.config = d.config.Clone()
	lane.config.NextProtos = []string{laneProtocol + t.PublicName()}
	return lane.DialConn(ctx)
}

// AcceptTLS makes the server's side of a TLS handshake on a connection that was handed over, and returns it with the name of
// the peer, which must be one of allow, as with ListenOptions. On an error raw is still the caller's.
func AcceptTLS(ctx context.Context, raw net.Conn, c Certificates, allow []string) (conn net.Conn, peer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, openingTimeout)
	defer cancel()
	config, err := c.load()
	if err != nil {
		return nil, "", err
	}
	// Go refuses a client that offers protocols, none of which the server has, only when the server has any.
	accepted, err := admitTLS(ctx, raw, config, allow, func() {})
	if err != nil {
		return nil, "", err
	}
	return accepted, accepted.peer, nil
}

// peekLane reads the session's name out of a caller's first message, which stays to be read. "" when it names none.
func peekLane(ctx context.Context, conn net.Conn) string {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return ""
	}
	hello := make([]byte, maxSealed)
	ctx, cancel := context.WithTimeout(ctx, restPatience)
	defer cancel()
	for seen, wait := 0, time.Millisecond; ; wait = min(2*wait, longestWait) {
		n, err := socket.Peek(ctx, tcp, hello)
		if err != nil {
			return ""
		}
		if n == seen { // no more than last time, and parsing is not for nothing
			if !pause(ctx, wait) {
				return ""
			}
			continue
		}
		seen = n
		protocols, err := offered(hello[:n])
		if err == nil {
			return sessionOf(protocols)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) || n == len(hello) {
			return "" // no TLS, or an odd one: the handshake will say so
		}
		if !pause(ctx, wait) { // the rest is on its way, and a peek does not wait for it
			return ""
		}
	}
}

const (
	// restPatience bounds the wait for the first message. The handshake, which can tell that a caller is gone, waits longer.
	restPatience = 2 * time.Second
	longestWait  = 50 * time.Millisecond
)

// pause waits; false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func sessionOf(protocols []string) string {
	for _, p := range protocols {
		name, found := strings.CutPrefix(p, laneProtocol)
		if raw, err := hex.DecodeString(name); found && err == nil && len(raw) == 12 {
			return name
		}
	}
	return ""
}

// errSeen ends a handshake as soon as its first message is parsed.
var errSeen = errors.New("seen")

// offered lists the application protocols that the first message of a TLS client offers. crypto/tls parses it, in a
// handshake that goes no further. io.ErrUnexpectedEOF when the message is not there whole.
func offered(hello []byte) (protocols []string, err error) {
	parse := tls.Server(&deafConn{in: bytes.NewReader(hello)}, &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
			protocols = info.SupportedProtos
			return nil, errSeen
		},
	})
	err = parse.HandshakeContext(context.Background())
	switch {
	case errors.Is(err, errSeen):
		return protocols, nil
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	default:
		return nil, fmt.Errorf("parse hello: %w", err)
	}
}

// deafConn gives what it holds to read, and swallows what is written.
type deafConn struct {
	net.Conn // nil: nothing else of it is used
	in       *bytes.Reader
}

func (c *deafConn) Read(b []byte) (int, error)       { return c.in.Read(b) }
func (c *deafConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c *deafConn) Close() error                     { return nil }
func (c *deafConn) SetDeadline(time.Time) error      { return nil }
func (c *deafConn) SetReadDeadline(time.Time) error  { return nil }
func (c *deafConn) SetWriteDeadline(time.Time) error { return nil }
