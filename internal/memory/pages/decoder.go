package pages

import (
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/livemigrate/migrate/internal/memory"
)

// Decoder reads frames. It owns a fixed buffer of 1 MiB; one goroutine at a time.
type Decoder struct {
	limit  uint64
	zstd   *zstd.Decoder
	pages  []byte
	runs   []Slots
	sorted []Slots
}

// NewDecoder makes a decoder for a store whose last slot is limit. The caller closes it.
func NewDecoder(limit uint64) (*Decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(FramePages*memory.PageSize), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("make decoder of pages: %w", err)
	}
	return &Decoder{
		limit: limit, zstd: z, pages: make([]byte, FramePages*memory.PageSize),
		runs: make([]Slots, 0, FramePages), sorted: make([]Slots, 0, FramePages),
	}, nil
}

// Decode checks a whole frame and only then calls put, once a run of slots with the bytes of its pages, which are put's
// until it returns. A frame that is not as it was sent, or that names slots that it may not, is refused with one of the
// ErrFrame errors, and nothing of it was put.
func (d *Decoder) Decode(frame []byte, put func(slots Slots, pages []byte) error) error {
	p, err := parse(frame, d.limit, d.runs, d.sorted)
	if err != nil {
		return err
	}
	pages, err := d.body(p)
	if err != nil {
		return err
	}
	for _, r := range p.runs {
		n := r.Pages * memory.PageSize
		if err := put(r, pages[:n:n]); err != nil {
			return err
		}
		pages = pages[n:]
	}
	return nil
}

// body brings the pages in their plain form: exactly as many as the header says.
func (d *Decoder) body(p parsed) ([]byte, error) {
	size := p.pages * memory.PageSize
	switch p.form {
	case Plain:
		if len(p.body) != size {
			return nil, errRefused(ErrFrameLength, "%d plain bytes for %d pages", len(p.body), p.pages)
		}
		return p.body, nil
	case Sparse:
		if !expandSparse(d.pages[:size], p.body) {
			return nil, errRefused(ErrFrameForm, "%d sparse bytes are not %d pages", len(p.body), p.pages)
		}
		return d.pages[:size], nil
	case Zstd:
		out, err := d.zstd.DecodeAll(p.body, d.pages[:0:size])
		if err != nil {
			return nil, errRefused(ErrFrameForm, "%v", err)
		}
		if len(out) != size {
			return nil, errRefused(ErrFrameForm, "%d zstd bytes are %d bytes, not %d pages", len(p.body), len(out), p.pages)
		}
		return out, nil
	}
	return nil, errRefused(ErrFrameForm, "%v is not known here", p.form)
}

// Close frees the decoder.
func (d *Decoder) Close() { d.zstd.Close() }
