package filesync

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// base is what the peer has of a large file: a patch against it sends only the chunks that differ.
type base struct {
	digest Digest
	chunks []Digest
}

// reader reads a file's content by chunks. It is used for one file at a time.
type reader struct {
	buf  []byte
	sum  summer
	zero Digest // of a whole chunk of zeros
	data int64  // no data lies between the chunk read last and this offset
}

func newReader() *reader {
	r := &reader{buf: make([]byte, chunkSize)}
	r.zero = digestOf(r.buf)
	return r
}

// small reads a file of at most maxInline bytes. stable says that it did not change meanwhile; after is its state then.
func (r *reader) small(f *os.File, before *fs.Stat) (content []byte, after fs.Stat, stable bool, err error) {
	if before.Size > 0 {
		n, err := f.ReadAt(r.buf[:before.Size], 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, after, false, err
		}
		content = r.buf[:n]
	}
	after, err = fs.StatFile(f)
	if err != nil {
		return nil, after, false, err
	}
	return content, after, after.Unchanged(before) && int64(len(content)) == after.Size, nil
}

// chunk reads one chunk: extents of data in buf, zeros between. A file that has shrunk reads as zeros.
func (r *reader) chunk(f *os.File, st *fs.Stat, i int64) (digest Digest, extents []extent, err error) {
	n := chunkLen(st.Size, i)
	off := i * chunkSize
	buf := r.buf[:n]
	if st.Blocks*512 >= st.Size { // no holes
		if err := readFull(f, buf, off); err != nil {
			return digest, nil, err
		}
		return digestOf(buf), []extent{{data: buf}}, nil
	}
	if i == 0 {
		r.data = 0
	}
	if r.data >= off+chunkSize { // inside a hole that spans chunks
		return r.zero, nil, nil
	}
	filled := 0
	for at := off; at < off+int64(n); {
		start, end, err := fs.NextData(f, at, st.Size)
		if err != nil {
			return digest, nil, err
		}
		r.data = start
		start, end = min(start, off+int64(n)), min(end, off+int64(n))
		if start >= end {
			break
		}
		if len(extents) == maxExtents { // finer than pages: what follows goes as data
			start, end = off+int64(filled), off+int64(n)
		}
		lo, hi := int(start-off), int(end-off)
		clear(buf[filled:lo])
		if err := readFull(f, buf[lo:hi], start); err != nil {
			return digest, nil, err
		}
		if len(extents) == maxExtents {
			last := &extents[maxExtents-1]
			last.data = buf[last.off:hi]
		} else {
			extents = append(extents, extent{off: lo, data: buf[lo:hi]})
		}
		at, filled = end, hi
	}
	clear(buf[filled:])
	if len(extents) == 0 && n == chunkSize {
		return r.zero, nil, nil
	}
	return digestOf(buf), extents, nil
}

func readFull(f *os.File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if errors.Is(err, io.EOF) {
		clear(b[n:])
		return nil
	}
	return err
}

// digest reads a whole file for its digest and those of its chunks.
func (r *reader) digest(f *os.File, st *fs.Stat) (d Digest, list []Digest, err error) {
	r.sum.reset()
	for i := range chunks(st.Size) {
		c, _, err := r.chunk(f, st, i)
		if err != nil {
			return d, nil, fmt.Errorf("read %s: %w", f.Name(), err)
		}
		r.sum.add(c)
	}
	return r.sum.sum(), r.sum.list, nil
}
