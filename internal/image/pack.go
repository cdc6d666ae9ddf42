package image

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/livemigrate/migrate/internal/memory/packed"
)

// Compressed page files: pages-1.img.zst is in the place of pages-1.img, which no CRIU finds, and the manifest says what is in it.

// pack compresses a page file. nil: an empty one stays as it is. The file is gone before it is read, so that a set which is left
// half packed is not taken for one that is whole.
func pack(ctx context.Context, dir, name string) (*Pages, error) {
	path := filepath.Join(dir, name)
	from, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil || info.Size() == 0 {
		return nil, err
	}
	to, err := os.OpenFile(path+packedSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil {
		return nil, errors.Join(err, to.Close())
	}
	index, err := packed.Pack(ctx, to, from, info.Size())
	if err := errors.Join(err, to.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p := &Pages{Name: name, Size: index.Size, Chunk: index.Chunk, Frames: index.Frames}
	for _, sum := range index.Sums {
		p.Digests = append(p.Digests, hex.EncodeToString(sum[:]))
	}
	return p, nil
}

// Packed tells that the file is compressed.
func (p *Pages) Packed() bool { return p.Frames != nil }

// stored is the file as it is in the directory.
func (p *Pages) stored() (name string, size int64) {
	if !p.Packed() {
		return p.Name, p.Size
	}
	for _, frame := range p.Frames {
		size += frame
	}
	return p.Name + packedSuffix, size
}

// Index is what the manifest says of a compressed file, whose digests are in order.
func (p *Pages) Index() *packed.Index {
	x := &packed.Index{Size: p.Size, Chunk: p.Chunk, Frames: p.Frames, Sums: make([][16]byte, len(p.Digests))}
	for i, digest := range p.Digests {
		_, _ = hex.Decode(x.Sums[i][:], []byte(digest))
	}
	return x
}

func (p *Pages) verifyPacked(ctx context.Context, dir string, wanted func(p *Pages, chunk int64) bool) error {
	f, err := openPacked(dir, p)
	if err != nil {
		return err
	}
	defer f.Close()
	return p.damage(f.Verify(ctx, func(chunk int64) bool { return wanted(p, chunk) }))
}

// damage names the file in what the reader of chunks says.
func (p *Pages) damage(err error) error {
	if err == nil || !errors.Is(err, packed.ErrDamaged) {
		return err
	}
	return damaged(p.Name+packedSuffix, "%v", err)
}

// pageReader reads a page file, compressed or not, as if it were not.
type pageReader interface {
	io.ReaderAt
	io.Closer
}

// packedFile is one that is.
type packedFile struct {
	*packed.File
	from  *os.File
	pages *Pages
}

func openPacked(dir string, p *Pages) (*packedFile, error) {
	from, err := os.Open(filepath.Join(dir, p.Name+packedSuffix))
	if err != nil {
		return nil, err
	}
	f, err := packed.NewFile(from, p.Index())
	if err != nil {
		return nil, errors.Join(p.damage(err), from.Close())
	}
	return &packedFile{File: f, from: from, pages: p}, nil
}

// ReadAt reads forward, or each page costs a chunk.
func (f *packedFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	return n, f.pages.damage(err)
}

func (f *packedFile) Close() error { return errors.Join(f.File.Close(), f.from.Close()) }

// openPages opens a page file of the set.
func (s *Set) openPages(name string) (pageReader, error) {
	if p := s.known(name); p != nil && p.Packed() {
		return openPacked(s.Dir, p)
	}
	return os.Open(filepath.Join(s.Dir, name))
}

// Packed tells whether pages of the set, or of one below it, are compressed.
func (s *Set) Packed() bool {
	for _, set := range append([]*Set{s}, s.Parents...) {
		if set.Manifest != nil && slices.ContainsFunc(set.Manifest.Pages, func(p Pages) bool { return p.Packed() }) {
			return true
		}
	}
	return false
}

// VerifyPacked compares the compressed page files with the manifest's digests, and unpacks nothing.
func (s *Set) VerifyPacked(ctx context.Context) error {
	return s.verifyPages(ctx, func(p *Pages, _ int64) bool { return p.Packed() })
}

// HasPacked tells whether page files in dir, or below it, are compressed: CRIU must not build on them by itself.
func HasPacked(dir string) (bool, error) {
	for range maxParents {
		if err := finish(dir); err != nil {
			return false, err
		}
		found, err := filepath.Glob(filepath.Join(dir, "pages-*.img"+packedSuffix))
		if err != nil || len(found) > 0 {
			return len(found) > 0, err
		}
		link, err := parentOf(dir)
		if err != nil || link == "" {
			return false, err
		}
		dir = filepath.Join(dir, link)
	}
	return false, nil
}

func isThere(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}
