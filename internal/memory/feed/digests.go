package feed

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/livemigrate/migrate/internal/memory/packed"
)

// What the files have to be is in a file in memory that every feeder inherits: of each file that has digests these, 16 bytes each,
// and of a compressed one the lengths of its frames behind them, 8 bytes each.
const (
	digestSize = 16
	frameSize  = 8
)

// writeDigests appends what a part has.
func writeDigests(to *os.File, p *Part) error {
	var b []byte
	add := func(sums [][16]byte) {
		for _, sum := range sums {
			b = append(b, sum[:]...)
		}
	}
	if p.Packed != nil {
		add(p.Packed.Sums)
		for _, frame := range p.Packed.Frames {
			b = binary.LittleEndian.AppendUint64(b, uint64(frame))
		}
	} else {
		add(p.Digests.Sums)
	}
	if _, err := to.Write(b); err != nil {
		return fmt.Errorf("keep digests: %w", err)
	}
	return nil
}

// readDigests gives the parts what was written.
func readDigests(from *os.File, o *order, parts []Part) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, info.Size())
	if n, err := from.ReadAt(b, 0); n < len(b) { // other feeders read it too
		return fmt.Errorf("read digests: %w", err)
	}
	for i := range parts {
		p, chunk := &parts[i], o.Chunks[i]
		if chunk == 0 {
			continue
		}
		size := o.Sizes[i]
		if size == 0 {
			if info, err = p.File.Stat(); err != nil {
				return err
			}
			size = info.Size()
		}
		n, each := (size+chunk-1)/chunk, int64(digestSize)
		if o.Sizes[i] > 0 {
			each += frameSize
		}
		if int64(len(b)) < n*each {
			return fmt.Errorf("%w: %s has more pages than digests", ErrStore, p.File.Name())
		}
		sums := make([][16]byte, n)
		for k := range sums {
			copy(sums[k][:], b[k*digestSize:])
		}
		b = b[n*digestSize:]
		if o.Sizes[i] == 0 {
			p.Digests = &Digests{Chunk: chunk, Sums: sums}
			continue
		}
		p.Packed = &packed.Index{Size: size, Chunk: chunk, Sums: sums, Frames: make([]int64, n)}
		for k := range p.Packed.Frames {
			p.Packed.Frames[k] = int64(binary.LittleEndian.Uint64(b[k*frameSize:]))
		}
		b = b[n*frameSize:]
	}
	return nil
}
