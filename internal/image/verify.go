package image

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/zeebo/blake3"
	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"
)

// verifyFiles holds the directory against its manifest: no file missing, none too many, sizes of all, digests of metadata.
func (s *Set) verifyFiles() error {
	m := s.Manifest
	known := map[string]bool{}
	for _, want := range m.Metadata {
		known[want.Name] = true
		size, digest, err := digestWhole(filepath.Join(s.Dir, want.Name))
		switch {
		case errors.Is(err, os.ErrNotExist):
			return damaged(want.Name, "the file is missing")
		case err != nil:
			return err
		case size != want.Size:
			return damaged(want.Name, "%d bytes, the manifest says %d", size, want.Size)
		case digest != want.Digest:
			return damaged(want.Name, "the content differs from the manifest's digest")
		}
	}
	for i := range m.Pages {
		name, size := m.Pages[i].stored()
		known[name] = true
		info, err := os.Stat(filepath.Join(s.Dir, name))
		switch {
		case errors.Is(err, os.ErrNotExist):
			return damaged(name, "the file is missing")
		case err != nil:
			return err
		case info.Size() != size:
			return damaged(name, "%d bytes, the manifest says %d", info.Size(), size)
		}
	}
	names, err := list(s.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !known[name] {
			return damaged(name, "the manifest does not know the file")
		}
	}
	if parent, err := parentOf(s.Dir); err != nil {
		return err
	} else if parent != m.Parent {
		return damaged(parentName, "leads to %q, the manifest says %q", parent, m.Parent)
	}
	return nil
}

// VerifyPages reads every page file of the set and its parents and compares it with the manifest. The error names the
// file. Sets without a manifest have nothing to compare with.
func (s *Set) VerifyPages(ctx context.Context) error {
	return s.verifyPages(ctx, func(*Pages, int64) bool { return true })
}

// verifyPages is VerifyPages of the chunks that are wanted.
func (s *Set) verifyPages(ctx context.Context, wanted func(p *Pages, chunk int64) bool) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, set := range append([]*Set{s}, s.Parents...) {
		if set.Manifest == nil {
			continue
		}
		for i := range set.Manifest.Pages {
			want := &set.Manifest.Pages[i]
			group.Go(func() error {
				if err := want.verify(ctx, set.Dir, wanted); err != nil {
					return fmt.Errorf("verify pages in %q: %w", set.Dir, err)
				}
				return nil
			})
		}
	}
	return group.Wait()
}

func (p *Pages) verify(ctx context.Context, dir string, wanted func(p *Pages, chunk int64) bool) error {
	if p.Packed() {
		return p.verifyPacked(ctx, dir, wanted)
	}
	f, err := os.Open(filepath.Join(dir, p.Name))
	if err != nil {
		return err
	}
	defer f.Close()
	chunk := make([]byte, min(p.Chunk, p.Size))
	for i, want := range p.Digests {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !wanted(p, int64(i)) {
			continue
		}
		offset := int64(i) * p.Chunk
		got := chunk[:min(p.Chunk, p.Size-offset)]
		if n, err := f.ReadAt(got, offset); n < len(got) {
			return damaged(p.Name, "%v after %d bytes", err, offset+int64(n))
		}
		if digest(got) != want {
			return damaged(p.Name, "bytes %d to %d differ from the manifest's digest", offset, offset+int64(len(got)))
		}
	}
	return nil
}

func digestWhole(path string) (int64, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	hash := blake3.New()
	size, err := io.Copy(hash, f)
	if err != nil {
		return 0, "", err
	}
	return size, hex.EncodeToString(hash.Sum(nil)), nil
}

// digestChunks uses every processor: for a checkpoint that leaves the container running, it stands still meanwhile.
func digestChunks(path string, chunkSize int64) (int64, []string, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, nil, err
	}
	size := info.Size()
	digests := make([]string, (size+chunkSize-1)/chunkSize)
	var group errgroup.Group
	workers := runtime.GOMAXPROCS(0)
	for worker := range workers {
		group.Go(func() error {
			chunk := make([]byte, min(chunkSize, size))
			for i := worker; i < len(digests); i += workers {
				offset := int64(i) * chunkSize
				n, err := f.ReadAt(chunk[:min(chunkSize, size-offset)], offset)
				if err != nil && !errors.Is(err, io.EOF) {
					return err
				}
				digests[i] = digest(chunk[:n])
			}
			return nil
		})
	}
	return size, digests, group.Wait()
}

func digest(chunk []byte) string {
	sum := xxh3.Hash128(chunk).Bytes()
	return hex.EncodeToString(sum[:])
}
