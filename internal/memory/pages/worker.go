package pages

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/reader"
)

// step is how many pages are read at a time. They are compared, and closed up in the frame, while they are still in the core's
// cache.
const step = 64

// worker fills one frame after the other. Its buffers are made once.
type worker struct {
	filler   reader.Filler
	frame    []byte // headroom, then up to FramePages pages as they were read
	packed   []byte // headroom, then the body in another form
	slots    []uint32
	runs     []Slots
	seen     []seen
	verdicts []verdict
	batch    []memory.Range
	zstd     *zstd.Encoder
	stats    Round
}

func newWorker() (*worker, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(FramePages*memory.PageSize), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("make compressor of pages: %w", err)
	}
	const size = headroom + FramePages*memory.PageSize
	return &worker{frame: make([]byte, size), packed: make([]byte, size), zstd: z}, nil
}

// work reads what the round has left, until nothing is.
func (w *worker) work(ctx context.Context, r *round) error {
	w.slots, w.stats = w.slots[:0], Round{}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		room := FramePages - len(w.slots)
		c, batch := r.next(w.batch[:0], uint64(min(room, step)))
		w.batch = batch
		if c == nil {
			return w.flush(ctx, r)
		}
		if err := w.read(r, c); err != nil {
			return err
		}
		if FramePages-len(w.slots) < step/2 {
			if err := w.flush(ctx, r); err != nil {
				return err
			}
		}
	}
}

// read reads the batch behind the pages that the frame has, and keeps those that must be sent.
func (w *worker) read(r *round, c *Change) error {
	body := w.frame[headroom:]
	at := len(w.slots) * memory.PageSize
	got, gone, err := w.filler.Fill(c.Pid, body[at:], w.batch)
	if errors.Is(err, reader.ErrTaskGone) {
		r.ended(c)
		return nil
	}
	if err != nil {
		return err
	}
	if len(gone) > 0 {
		r.ledger.Gone(c.Space, gone)
		w.stats.Gone += total(gone)
	}
	w.seen = w.seen[:0]
	from := at
	for _, g := range got {
		for addr := g.Start; addr < g.End(); addr += memory.PageSize {
			page := body[from : from+memory.PageSize]
			from += memory.PageSize
			if reader.Zero(page) {
				w.seen = append(w.seen, seen{addr: addr, zero: true})
				continue
			}
			w.seen = append(w.seen, seen{addr: addr, digest: r.ledger.digest(page)})
		}
	}
	if w.verdicts, err = r.ledger.note(c.Space, w.seen, w.verdicts[:0]); err != nil {
		return err
	}
	w.stats.Scanned += uint64(len(w.seen)) * memory.PageSize
	w.close(at)
	return nil
}

// close brings the pages to be sent together: from the place at on there is one page for each verdict.
func (w *worker) close(at int) {
	body := w.frame[headroom:]
	to := at
	for i, v := range w.verdicts {
		switch v.kind {
		case zero:
			w.stats.Zero += memory.PageSize
		case same:
			w.stats.Same += memory.PageSize
		case shared:
			w.stats.Shared += memory.PageSize
		case toSend:
			if from := at + i*memory.PageSize; from != to {
				copy(body[to:to+memory.PageSize], body[from:])
			}
			to += memory.PageSize
			w.slots = append(w.slots, v.slot)
			w.stats.Copied += memory.PageSize
		}
	}
}

// flush sends the frame, if there is anything in it, on the first lane that is free.
func (w *worker) flush(ctx context.Context, r *round) error {
	if len(w.slots) == 0 {
		return nil
	}
	frame := w.encode(r.pace)
	w.slots = w.slots[:0]
	var lane Lane
	select {
	case lane = <-r.lanes:
	case <-ctx.Done():
		return ctx.Err()
	}
	start := time.Now()
	err := lane(ctx, frame)
	took := time.Since(start)
	r.lanes <- lane
	if err != nil {
		return fmt.Errorf("send frame of pages: %w", err)
	}
	r.pace.sent(len(frame), took)
	w.stats.Frames++
	w.stats.Wire += uint64(len(frame))
	return nil
}

// encode makes the frame of the pages read so far, in the form that gets them to the peer first.
func (w *worker) encode(p *pace) []byte {
	w.runs = w.runs[:0]
	for _, slot := range w.slots {
		if n := len(w.runs); n > 0 && w.runs[n-1].First+w.runs[n-1].Pages == uint64(slot) {
			w.runs[n-1].Pages++
			continue
		}
		w.runs = append(w.runs, Slots{First: uint64(slot), Pages: 1})
	}
	size := len(w.slots) * memory.PageSize
	plain := w.frame[headroom : headroom+size]
	sparse := sparseEstimate(plain)
	form := p.choose(size, sparse)
	if form == Zstd {
		start := time.Now()
		out := w.zstd.EncodeAll(plain, w.packed[:headroom])
		p.compressed(size, len(out)-headroom, time.Since(start))
		if float64(len(out)-headroom) < worth*float64(size) {
			w.stats.Zstd++
			return seal(out, Zstd, w.runs, len(w.slots))
		}
		form = Sparse
	}
	if form == Sparse && float64(sparse) < worth*float64(size) {
		if out, ok := appendSparse(w.packed[:headroom:headroom+size], plain); ok {
			w.stats.Sparse++
			return seal(out, Sparse, w.runs, len(w.slots))
		}
	}
	return seal(w.frame[:headroom+size], Plain, w.runs, len(w.slots))
}

func total(ranges []memory.Range) (bytes uint64) {
	for _, r := range ranges {
		bytes += r.Bytes()
	}
	return bytes
}
