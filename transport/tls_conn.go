package transport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
)

const (
	// maxRecord is the plaintext that one TLS record can hold.
	maxRecord = 16 << 10
	// maxSealed is no less than a record on the wire: RFC 8446 adds at most 256 bytes and a header of 5.
	maxSealed = maxRecord + 256 + 5
	// batchWrite and batchRead are how much goes through one system call. crypto/tls makes one for each record; several at
	// a time cost a copy in the processor's cache and save a third of the time spent in the kernel.
	batchWrite = 64 << 10
	batchRead  = 128 << 10
)

// tlsConn is a TLS connection whose handshake is over.
type tlsConn struct {
	*tls.Conn
	batch   *batchConn
	peer    string
	own     *x509.Certificate // of a dialer, who learns only later that it is refused
	record  bytes.Buffer      // less than one record's worth of small parts
	release func()
}

func dialTLS(ctx context.Context, raw net.Conn, config *tls.Config) (*tlsConn, error) {
	batch := &batchConn{Conn: raw}
	conn, err := handshake(ctx, tls.Client(batch, config), batch, func() {})
	if err == nil {
		conn.own = config.Certificates[0].Leaf
	}
	return conn, err
}

func acceptTLS(ctx context.Context, raw net.Conn, config *tls.Config, release func()) (*tlsConn, error) {
	batch := &batchConn{Conn: raw}
	return handshake(ctx, tls.Server(batch, config), batch, release)
}

func handshake(ctx context.Context, conn *tls.Conn, batch *batchConn, release func()) (*tlsConn, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	batch.known()
	return &tlsConn{
		Conn:    conn,
		batch:   batch,
		peer:    certName(conn.ConnectionState().PeerCertificates[0]),
		release: release,
	}, nil
}

func (c *tlsConn) PeerName() string { return c.peer }

// Read reads what has come already, several records if b has room for them, so that a proxy passes them on at once. It
// says more than crypto/tls when the peer refuses this side's certificate: in TLS 1.3 a client learns of that only when
// it reads.
func (c *tlsConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		return n, explainAlert(err, c.own)
	}
	for n < len(b) && c.batch.in.Buffered() >= maxSealed {
		m, err := c.Conn.Read(b[n:])
		n += m
		if m == 0 || err != nil {
			return n, nil //nolint:nilerr // the error comes again at the next read; what was read counts first
		}
	}
	return n, nil
}

func (c *tlsConn) Write(b []byte) (int, error) {
	if len(b) <= maxRecord {
		return c.Conn.Write(b)
	}
	c.batch.begin()
	n, err := c.Conn.Write(b)
	return n, c.batch.end(err)
}

func (c *tlsConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// Abort closes without the alert that says so, which would block while the peer is gone.
func (c *tlsConn) Abort() {
	defer c.release()
	_ = c.batch.Close() // nothing is expected of it any more
}

// WriteBuffers writes the slices in records as full as can be: small ones are put together, long ones go as they are
// and only their tails are copied.
func (c *tlsConn) WriteBuffers(bufs net.Buffers) (int64, error) {
	c.batch.begin()
	n, err := c.writeRecords(bufs)
	return n, c.batch.end(err)
}

func (c *tlsConn) writeRecords(bufs net.Buffers) (written int64, err error) {
	write := func(b []byte) error {
		n, err := c.Conn.Write(b)
		written += int64(n)
		return err
	}
	c.record.Reset()
	for _, b := range bufs {
		if c.record.Len() > 0 {
			fill := min(len(b), maxRecord-c.record.Len())
			c.record.Write(b[:fill])
			b = b[fill:]
			if c.record.Len() < maxRecord {
				continue
			}
			if err := write(c.record.Bytes()); err != nil {
				return written, err
			}
			c.record.Reset()
		}
		whole := len(b) - len(b)%maxRecord
		if whole > 0 {
			if err := write(b[:whole]); err != nil {
				return written, err
			}
		}
		c.record.Write(b[whole:])
	}
	if c.record.Len() == 0 {
		return written, nil
	}
	return written, write(c.record.Bytes())
}

// batchConn lies under TLS. Between begin and end it collects records; else it writes them at once. The lock is for
// crypto/tls, which may write while it reads: an alert, or the answer to a change of keys.
type batchConn struct {
	net.Conn
	in *bufio.Reader // once the handshake is over

	mu      sync.Mutex
	open    bool
	pending []byte
}

// known gives the connection its buffers; a stranger has none.
func (c *batchConn) known() { c.in = bufio.NewReaderSize(c.Conn, batchRead) }

func (c *batchConn) Read(b []byte) (int, error) {
	if c.in == nil {
		return c.Conn.Read(b)
	}
	return c.in.Read(b)
}

func (c *batchConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.open {
		return c.Conn.Write(b)
	}
	if len(c.pending)+len(b) > batchWrite {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	if c.pending == nil {
		c.pending = make([]byte, 0, batchWrite) // a record with its header and tag is far shorter
	}
	c.pending = append(c.pending, b...)
	return len(b), nil
}

func (c *batchConn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = true
}

// end writes what was collected, unless the writing has failed already.
func (c *batchConn) end(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = false
	if err != nil {
		return err
	}
	return c.flush()
}

func (c *batchConn) flush() error {
	if len(c.pending) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.pending)
	c.pending = c.pending[:0]
	return err
}
