package packed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/internal/sys/hole"
)

// piece is a chunk on its way.
type piece struct {
	plain, frame []byte
	packed       chan struct{} // has a token when the frame is there
}

// giveBack is how much of the source is given back at a time, in bytes.
const giveBack = 16 << 20

// Pack compresses size bytes of from into w. What is written is given back, so that no file system has to hold both: from, which
// must be open for writing, has holes there, also when that failed. Less than 16 MiB at the end may be left in it.
func Pack(ctx context.Context, w io.Writer, from *os.File, size int64) (*Index, error) {
	x, err := pack(ctx, w, from, size, Chunk)
	if err != nil {
		return nil, fmt.Errorf("compress pages: %w", err)
	}
	return x, nil
}

func pack(ctx context.Context, w io.Writer, from *os.File, size, chunk int64) (*Index, error) {
	x := &Index{Size: size, Chunk: chunk}
	workers := runtime.GOMAXPROCS(0)
	pieces := 2 * workers
	idle, todo, order := make(chan *piece, pieces), make(chan *piece, pieces), make(chan *piece, pieces)
	for range pieces {
		idle <- &piece{plain: make([]byte, chunk), packed: make(chan struct{}, 1)}
	}
	encoders := make([]*zstd.Encoder, workers)
	for i := range encoders {
		var err error
		if encoders[i], err = newEncoder(chunk); err != nil {
			return nil, err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(todo)
		defer close(order)
		return read(ctx, from, x, idle, todo, order)
	})
	for _, encoder := range encoders {
		group.Go(func() error {
			for p := range todo {
				p.frame = encoder.EncodeAll(p.plain, p.frame[:0])
				p.packed <- struct{}{}
			}
			return encoder.Close()
		})
	}
	group.Go(func() error { return write(ctx, w, from, x, order, idle) })
	return x, group.Wait()
}

// read hands out the chunks: to whoever compresses them, and in their order to whoever writes.
func read(ctx context.Context, from io.ReaderAt, x *Index, idle <-chan *piece, todo, order chan<- *piece) error {
	for at := int64(0); at < x.Size; at += x.Chunk {
		var p *piece
		select {
		case p = <-idle:
		case <-ctx.Done():
			return ctx.Err()
		}
		p.plain = p.plain[:min(x.Chunk, x.Size-at)]
		if n, err := from.ReadAt(p.plain, at); n < len(p.plain) {
			return fmt.Errorf("read %d bytes at %d: %w", len(p.plain), at, err)
		}
		todo <- p // each has room for all pieces
		order <- p
	}
	return nil
}

// write takes the chunks in their order.
func write(ctx context.Context, w io.Writer, from *os.File, x *Index, order <-chan *piece, idle chan<- *piece) error {
	given, done := int64(0), int64(0)
	for p := range order {
		select {
		case <-p.packed:
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, err := w.Write(p.frame); err != nil {
			return err
		}
		x.Frames = append(x.Frames, int64(len(p.frame)))
		x.Sums = append(x.Sums, xxh3.Hash128(p.frame).Bytes())
		done += int64(len(p.plain))
		idle <- p
		if done-given < giveBack {
			continue
		}
		if err := hole.Punch(from, given, done-given); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("give back what is compressed: %w", err)
		}
		given = done
	}
	return nil
}
