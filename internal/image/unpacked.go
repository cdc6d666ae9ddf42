package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Write makes the set in dir, which is there and empty. ErrDamaged when a byte that it needs is not what the manifest says.
func (u *Unpacking) Write(ctx context.Context, dir string) error {
	if err := u.write(ctx, dir); err != nil {
		return fmt.Errorf("unpack %q: %w", u.set.Dir, err)
	}
	return nil
}

func (u *Unpacking) write(ctx context.Context, dir string) (err error) {
	if err := u.copyMetadata(dir); err != nil {
		return err
	}
	w := &unpacker{Unpacking: u, files: make([]*os.File, len(u.maps)), readers: make([]*chunks, len(u.sources)), left: u.moves}
	defer func() { err = errors.Join(err, w.close()) }()
	for i, m := range u.maps {
		// Also one without pages: CRIU takes a file that is missing for an error of its own.
		if w.files[i], err = os.OpenFile(filepath.Join(dir, pagesName(m.m.PagesID)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return err
		}
	}
	for i := range u.sources {
		if u.sources[i].size == 0 {
			continue
		}
		if w.readers[i], err = u.sources[i].open(); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error { return w.work(ctx) })
	}
	return group.Wait()
}

type unpacker struct {
	*Unpacking
	files   []*os.File // by map
	readers []*chunks  // by source; nil for an empty one

	mu   sync.Mutex
	left []move
}

// next takes the moves of one chunk.
func (w *unpacker) next() []move {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.left) == 0 {
		return nil
	}
	first := w.left[0]
	chunk := first.from / w.sources[first.source].chunk
	n := 1
	for n < len(w.left) && w.left[n].source == first.source && w.left[n].from/w.sources[first.source].chunk == chunk {
		n++
	}
	taken := w.left[:n]
	w.left = w.left[n:]
	return taken
}

func (w *unpacker) work(ctx context.Context) error {
	var buffer []byte
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		moves := w.next()
		if moves == nil {
			return nil
		}
		src := w.readers[moves[0].source]
		chunk := moves[0].from / src.chunk
		if int64(cap(buffer)) < src.chunk {
			buffer = make([]byte, src.chunk)
		}
		content, err := src.read(int(chunk), buffer[:src.chunk])
		if err != nil {
			return err
		}
		for _, m := range moves {
			from := m.from - chunk*src.chunk
			if _, err := w.files[m.target].WriteAt(content[from:from+m.size], m.to); err != nil {
				return err
			}
		}
	}
}

func (w *unpacker) close() error {
	var err error
	for _, f := range w.files {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	for _, r := range w.readers {
		if r != nil {
			err = errors.Join(err, r.Close())
		}
	}
	return err
}

// chunks reads a source's chunks, proven where there is something to prove them by.
type chunks struct {
	*source
	pageReader
}

func (s *source) open() (*chunks, error) {
	f, err := s.set.openPages(s.name)
	if err != nil {
		return nil, err
	}
	return &chunks{s, f}, nil
}

func (c *chunks) read(chunk int, buffer []byte) ([]byte, error) {
	if f, ok := c.pageReader.(*packedFile); ok {
		content, err := f.Decode(chunk, buffer)
		return content, f.pages.damage(err)
	}
	offset := int64(chunk) * c.chunk
	content := buffer[:min(c.chunk, c.size-offset)]
	if n, err := c.ReadAt(content, offset); n < len(content) {
		if errors.Is(err, io.EOF) {
			err = damaged(c.name, "it ends after %d bytes", offset+int64(n))
		}
		return nil, err
	}
	if c.known != nil && digest(content) != c.known.Digests[chunk] {
		return nil, damaged(c.name, "bytes %d to %d differ from the manifest's digest", offset, offset+int64(len(content)))
	}
	return content, nil
}
