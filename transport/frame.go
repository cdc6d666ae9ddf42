package transport

import (
	"bufio"
	"fmt"
	"io"
	"net"
)

const (
	// MaxFrame is the greatest length of a data lane's frame: 1 MiB of memory or file and room for a message about it.
	MaxFrame = 1<<20 + 64<<10
	// MaxControl is the greatest length of a control lane's frame.
	MaxControl = 1 << 20
)

// After preamble and answer a connection carries frames, in both directions; the length is big-endian.
//
//	 0      1              4
//	+------+--------------+------------------------+
//	| kind | length       | payload, length bytes  |
//	+------+--------------+------------------------+
const headerSize = 4

const (
	kindData byte = 0
	kindBeat byte = 1 // heartbeat; control lane only, no payload
	kindBye  byte = 2 // the last frame in this direction; no payload
)

func putHeader(b *[headerSize]byte, kind byte, length int) {
	b[0], b[1], b[2], b[3] = kind, byte(length>>16), byte(length>>8), byte(length)
}

// frameReader reads the frames of one connection.
type frameReader struct {
	r       *bufio.Reader
	max     int
	control bool
	header  [headerSize]byte
	got     int // bytes of the header that came before a read was interrupted
}

// readAhead is small on purpose: it saves a system call for each short frame, and long payloads pass it by.
const readAhead = 16 << 10

func newFrameReader(r io.Reader, control bool) *frameReader {
	limit := MaxFrame
	if control {
		limit = MaxControl
	}
	return &frameReader{r: bufio.NewReaderSize(r, readAhead), max: limit, control: control}
}

// next reads a header. An interrupted call can be repeated: nothing of the header is forgotten.
func (f *frameReader) next() (kind byte, length int, err error) {
	for f.got < headerSize {
		n, err := f.r.Read(f.header[f.got:])
		f.got += n
		if err != nil {
			return 0, 0, lost(err)
		}
	}
	f.got = 0
	kind = f.header[0]
	length = int(f.header[1])<<16 | int(f.header[2])<<8 | int(f.header[3])
	switch {
	case kind > kindBye, kind == kindBeat && !f.control, kind != kindData && length != 0:
		return 0, 0, fmt.Errorf("%w: kind %d, length %d", ErrBadFrame, kind, length)
	case length > f.max:
		return 0, 0, fmt.Errorf("%w: the peer announces %d bytes, at most %d", ErrFrameTooLarge, length, f.max)
	}
	return kind, length, nil
}

// payload reads what the header announced into buf, or into a new buffer when buf is too small.
func (f *frameReader) payload(buf []byte, length int) ([]byte, error) {
	if cap(buf) < length {
		buf = make([]byte, length)
	}
	buf = buf[:length]
	if _, err := io.ReadFull(f.r, buf); err != nil {
		return nil, lost(err)
	}
	return buf, nil
}

// buffersWriter is a connection that knows best how to write several slices at once.
type buffersWriter interface {
	WriteBuffers(bufs net.Buffers) (int64, error)
}

// frameWriter writes the frames of one connection, each with one writev where the connection is a socket.
type frameWriter struct {
	conn   net.Conn
	header [headerSize]byte
	vector [][]byte // the memory of bufs, reused
	bufs   net.Buffers
}

// write writes one frame and returns how many bytes of it the connection took.
func (f *frameWriter) write(kind byte, parts [][]byte) (int64, error) {
	putHeader(&f.header, kind, length(parts))
	f.vector = append(f.vector[:0], f.header[:])
	for _, p := range parts {
		if len(p) > 0 {
			f.vector = append(f.vector, p)
		}
	}
	defer clear(f.vector) // do not keep the caller's memory alive
	if w, ok := f.conn.(buffersWriter); ok {
		return w.WriteBuffers(f.vector)
	}
	f.bufs = f.vector
	return f.bufs.WriteTo(f.conn)
}

func length(parts [][]byte) int {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	return n
}
