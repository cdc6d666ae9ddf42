package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"
)

// MaxChunk is the most image data in one frame. Large enough that a frame's cost does not show, small enough that a lane's
// buffers stay small.
const MaxChunk = 512 << 10

// A chunk is a frame of an image lane: a piece of one file, for its place in that file.
//
//	+--------+----------+----------------+------------------+------------------+----------------------+
//	| 'I'  1 | length 1 | name (length)  | offset 8, little | xxh3 64 8, little| data, 1..MaxChunk    |
//	+--------+----------+----------------+------------------+------------------+----------------------+
//
// The digest covers the data. It finds corruption (of memory, of a broken middlebox below a link without TLS); against an
// attacker the link itself protects.
const chunkTag = 'I'

// Chunk is a decoded frame. Data aliases the frame.
type Chunk struct {
	Name   string
	Offset uint64
	Data   []byte
}

// AppendChunkHeader appends the part of a chunk's frame that precedes its data.
func AppendChunkHeader(header []byte, c Chunk) []byte {
	header = append(header, chunkTag, byte(len(c.Name)))
	header = append(header, c.Name...)
	header = binary.LittleEndian.AppendUint64(header, c.Offset)
	return binary.LittleEndian.AppendUint64(header, xxh3.Hash(c.Data))
}

// DecodeChunk checks a frame of an image lane, its digest included.
func DecodeChunk(frame []byte) (Chunk, error) {
	if len(frame) < 2 || frame[0] != chunkTag {
		return Chunk{}, fmt.Errorf("%w: not an image chunk", ErrMalformed)
	}
	name, rest := int(frame[1]), frame[2:]
	if len(rest) < name+16 {
		return Chunk{}, fmt.Errorf("%w: an image chunk is cut off", ErrMalformed)
	}
	c := Chunk{Name: string(rest[:name]), Offset: binary.LittleEndian.Uint64(rest[name:]), Data: rest[name+16:]}
	switch {
	case !ValidImageName(c.Name):
		return Chunk{}, fmt.Errorf("%w: image file name %q", ErrMalformed, c.Name)
	case len(c.Data) == 0 || len(c.Data) > MaxChunk:
		return Chunk{}, fmt.Errorf("%w: an image chunk of %d bytes", ErrMalformed, len(c.Data))
	case c.Offset > 1<<50:
		return Chunk{}, fmt.Errorf("%w: an image chunk at offset %d", ErrMalformed, c.Offset)
	case xxh3.Hash(c.Data) != binary.LittleEndian.Uint64(rest[name+8:]):
		return Chunk{}, fmt.Errorf("%w: %s at offset %d does not match its digest", ErrMalformed, c.Name, c.Offset)
	}
	return c, nil
}
