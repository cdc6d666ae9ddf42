package draft

import (
	"fmt"

	"github.com/livemigrate/migrate/internal/memory"
)

// Reader reads the copies of one address space by address, once, in ascending order: what lies before a read is freed, so
// that pages that are written elsewhere take no room twice.
type Reader struct {
	draft *Draft
	space uint64
	at    uint64 // of the chunk read last
	last  *chunk
}

// Reader begins to read an address space. It is closed by who reads.
func (d *Draft) Reader(space uint64) *Reader { return &Reader{draft: d, space: space} }

// ReadAt reads whole pages at an address. ErrMissing when one of them was not copied, or is freed.
func (r *Reader) ReadAt(buf []byte, address int64) (int, error) {
	read := 0
	for read < len(buf) {
		piece := firstPiece(memory.Range{
			Start: uint64(address) + uint64(read), Pages: uint64(len(buf)-read) / memory.PageSize,
		})
		if piece.Pages == 0 {
			return read, fmt.Errorf("read copies of pages: %d bytes are no pages", len(buf))
		}
		if missing := r.draft.Missing(r.space, []memory.Range{piece}); len(missing) > 0 {
			return read, fmt.Errorf("%w: %#x", ErrMissing, missing[0].Start)
		}
		if err := r.turn(piece.Start); err != nil {
			return read, err
		}
		n, err := r.draft.file.ReadAt(buf[read:read+int(piece.Bytes())], r.last.place+int64(piece.Start%chunkBytes))
		read += n
		if err != nil {
			return read, fmt.Errorf("read copies of pages: %w", err)
		}
	}
	return read, nil
}

// turn goes to the chunk of an address, and frees the one before.
func (r *Reader) turn(address uint64) error {
	key := address / chunkBytes
	if r.last != nil && key == r.at {
		return nil
	}
	if err := r.Close(); err != nil {
		return err
	}
	r.at, r.last = key, r.draft.chunk(r.space, address)
	return nil
}

// Close frees what was read last.
func (r *Reader) Close() error {
	if r.last == nil {
		return nil
	}
	d := r.draft
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.free(r.last)
	delete(d.spaces[r.space], r.at)
	r.last = nil
	return err
}
