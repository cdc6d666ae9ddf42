package filesync

import "context"

// sender packs operations into frames, so that a small file costs a part of a frame and no round trip.
type sender struct {
	ctx context.Context // of the pass that the sender lives for
	ch  Channel
	buf []byte
	// least is how long a frame is at least; the next one is twice as long, so that the peer begins early.
	least int
}

// leastBatch is the first frame of a pass that the peer shall begin early with, bytes: some thirty small files.
const leastBatch = 4 << 10

func newSender(ctx context.Context, ch Channel) *sender {
	return &sender{ctx: ctx, ch: ch, least: batchSize, buf: append(make([]byte, 0, batchSize+maxInline), byte(frameChanges))}
}

func (w *sender) op(o *operation) error {
	w.buf = o.append(w.buf)
	if len(w.buf) < w.least {
		return nil
	}
	w.least = min(2*w.least, batchSize)
	return w.flush()
}

// chunk sends one chunk in a frame of its own; its data is not copied.
func (w *sender) chunk(o *operation) error {
	if err := w.flush(); err != nil {
		return err
	}
	head := o.appendChunkHead([]byte{byte(frameChanges), byte(opChunk)})
	parts := make([][]byte, 0, 1+len(o.extents))
	parts = append(parts, head)
	for _, e := range o.extents {
		parts = append(parts, e.data)
	}
	return w.ch.Send(w.ctx, parts...)
}

func (w *sender) flush() error {
	if len(w.buf) == 1 {
		return nil
	}
	err := w.ch.Send(w.ctx, w.buf)
	w.buf = w.buf[:1]
	return err
}

// end tells the peer that all is sent; with waive it shall not ask for what it could not find.
func (w *sender) end(waive bool) error {
	if err := w.flush(); err != nil {
		return err
	}
	return w.ch.Send(w.ctx, []byte{byte(frameEnd), flagByte(waive)})
}
