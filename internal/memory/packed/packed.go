// Package packed keeps the pages of a checkpoint compressed, so that any of them can be read without the others.
//
// The pages are cut in chunks, and each chunk is a zstd frame of its own; the frames lie one behind the other. `zstd -d`
// unpacks such a file. Where each frame ends, and what its bytes must be, is in the Index, which whoever packs keeps elsewhere:
// nothing in the file itself is believed.
//
//  1. Pack compresses a file, on all processors, and gives back its room as it goes.
//  2. A File reads chunks of what Pack wrote: it proves a frame's bytes by their digest before it decodes them.
package packed

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Chunk is how many bytes Pack compresses at a time, and so what one page costs to read: a fifth of a millisecond of memory full of
// JSON, measured in processor time, where a mebibyte takes 1.2. The ratio is the same from 64 KiB to there (0.24), and so is the
// speed, some 140 MB/s packing and 700 MB/s unpacking; only the index shrinks. It is also how much zstd has in a block.
const Chunk = 128 << 10

// MaxChunk bounds what a File decodes at once.
const MaxChunk = 64 << 20

// ErrDamaged: bytes are missing, or are not those that were stored. The text says which.
var ErrDamaged = errors.New("compressed pages are damaged")

// Index says what is in a file of frames.
type Index struct {
	Size   int64      // bytes unpacked
	Chunk  int64      // bytes unpacked of each frame; the last one has the rest
	Frames []int64    // bytes of each frame
	Sums   [][16]byte // XXH3-128 of each frame as it is stored
}

// Stored is how long the file of frames is.
func (x *Index) Stored() int64 {
	var n int64
	for _, frame := range x.Frames {
		n += frame
	}
	return n
}

// Check refuses an index whose numbers do not go together.
func (x *Index) Check() error {
	switch {
	case x.Size <= 0 || x.Chunk <= 0 || x.Chunk > MaxChunk:
		return fmt.Errorf("%d bytes in chunks of %d", x.Size, x.Chunk)
	case int64(len(x.Frames)) != (x.Size-1)/x.Chunk+1 || len(x.Sums) != len(x.Frames):
		return fmt.Errorf("%d frames and %d digests for %d bytes in chunks of %d", len(x.Frames), len(x.Sums), x.Size, x.Chunk)
	}
	for i, frame := range x.Frames {
		if frame <= 0 || frame > longest(x.Chunk) {
			return fmt.Errorf("frame %d has %d bytes", i, frame)
		}
	}
	return nil
}

// longest is how many bytes a frame of so many has at most: stored as they are, in blocks of 128 KiB.
func longest(chunk int64) int64 { return chunk + chunk>>10 + 128 }

// part is where a chunk begins and ends, unpacked.
func (x *Index) part(chunk int) (start, end int64) {
	start = int64(chunk) * x.Chunk
	return start, min(start+x.Chunk, x.Size)
}

// newEncoder compresses as fast as it can: it competes with a disk.
func newEncoder(chunk int64) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(int(chunk)), zstd.WithLowerEncoderMem(true))
}

func newDecoder(chunk int64) (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(uint64(max(chunk, 1<<10))), zstd.WithDecodeAllCapLimit(true))
}
