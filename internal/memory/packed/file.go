package packed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/xxh3"
)

// File reads what Pack wrote. It is used by several goroutines at once.
type File struct {
	from    io.ReaderAt
	index   *Index
	ends    []int64 // of the frames
	decoder *zstd.Decoder
	frames  sync.Pool // of buffers

	mu     sync.Mutex // of ReadAt's
	loaded int        // the chunk that is in recent; -1 for none
	recent []byte
}

// NewFile reads from a file of frames, which stays the caller's. The caller closes the File.
func NewFile(from io.ReaderAt, index *Index) (*File, error) {
	if err := index.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	decoder, err := newDecoder(index.Chunk)
	if err != nil {
		return nil, fmt.Errorf("make decoder of pages: %w", err)
	}
	f := &File{from: from, index: index, decoder: decoder, ends: make([]int64, len(index.Frames)), loaded: -1}
	end := int64(0)
	for i, frame := range index.Frames {
		end += frame
		f.ends[i] = end
	}
	return f, nil
}

// Chunks is how many there are.
func (f *File) Chunks() int { return len(f.ends) }

// Decode puts a chunk into dst, which has room for all of it and is what is returned, cut to its length. ErrDamaged when the
// stored bytes are not those of the index; other errors are of reading, and may pass.
func (f *File) Decode(chunk int, dst []byte) ([]byte, error) {
	frame, _ := f.frames.Get().([]byte)
	frame, err := f.frame(chunk, frame)
	defer f.frames.Put(frame) //nolint:staticcheck // a slice's header is nothing beside its bytes
	if err != nil {
		return nil, err
	}
	start, end := f.index.part(chunk)
	plain, err := f.decoder.DecodeAll(frame, dst[:0:end-start])
	if err == nil && int64(len(plain)) != end-start {
		err = fmt.Errorf("it holds %d bytes, not %d", len(plain), end-start)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, f.at(chunk), err)
	}
	return plain, nil
}

// frame reads a frame and proves it.
func (f *File) frame(chunk int, buffer []byte) ([]byte, error) {
	size := f.index.Frames[chunk]
	if int64(cap(buffer)) < size {
		buffer = make([]byte, longest(f.index.Chunk))
	}
	buffer = buffer[:size]
	n, err := f.from.ReadAt(buffer, f.ends[chunk]-size)
	switch {
	case int64(n) < size && errors.Is(err, io.EOF):
		return buffer, fmt.Errorf("%w: %s: the file ends before", ErrDamaged, f.at(chunk))
	case int64(n) < size:
		return buffer, fmt.Errorf("read %s: %w", f.at(chunk), err)
	}
	if sum := xxh3.Hash128(buffer).Bytes(); !bytes.Equal(sum[:], f.index.Sums[chunk][:]) {
		return buffer, fmt.Errorf("%w: %s differ from their digest", ErrDamaged, f.at(chunk))
	}
	return buffer, nil
}

func (f *File) at(chunk int) string {
	return fmt.Sprintf("bytes %d to %d", f.ends[chunk]-f.index.Frames[chunk], f.ends[chunk])
}

// Verify compares what is stored with the digests, and decodes nothing.
func (f *File) Verify(ctx context.Context, wanted func(chunk int64) bool) error {
	var buffer []byte
	for chunk := range f.ends {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !wanted(int64(chunk)) {
			continue
		}
		var err error
		if buffer, err = f.frame(chunk, buffer); err != nil {
			return err
		}
	}
	return nil
}

// ReadAt reads unpacked bytes. It remembers one chunk: reading goes forward, or each page costs a chunk.
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n < len(p) {
		if off < 0 || off >= f.index.Size {
			return n, io.EOF
		}
		chunk := int(off / f.index.Chunk)
		if chunk != f.loaded {
			if f.recent == nil {
				f.recent = make([]byte, min(f.index.Chunk, f.index.Size))
			}
			f.loaded = -1
			if _, err := f.Decode(chunk, f.recent); err != nil {
				return n, err
			}
			f.loaded = chunk
		}
		start, end := f.index.part(chunk)
		k := copy(p[n:], f.recent[off-start:end-start])
		n, off = n+k, off+int64(k)
	}
	return n, nil
}

// Close frees the decoder.
func (f *File) Close() error {
	f.decoder.Close()
	return nil
}
