package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/livemigrate/migrate/internal/wire"
)

// imageReceiver writes the chunks that arrive on the image lanes to the peer's image directory.
type imageReceiver struct {
	root *os.Root // no name of the peer leads out of it
	most uint64   // bytes that may come; 0: what there is room for

	mu    sync.Mutex
	came  uint64 // bytes, and those that come again count again
	files map[string]*imageFile
	grown chan struct{} // has a token whenever something arrived
}

type imageFile struct {
	*os.File
	whole   uint64            // all bytes before it are there
	islands map[uint64]uint64 // what is there behind it, start to end: lanes overtake each other
}

// maxIslands is how many pieces of a file may be ahead of what they follow: lanes overtake each other by a few.
const maxIslands = 1 << 12

// add notes a range that was written.
func (f *imageFile) add(start, end uint64) error {
	if len(f.islands) == maxIslands {
		return fmt.Errorf("%w: an image in more than %d pieces", wire.ErrMalformed, maxIslands)
	}
	f.islands[start] = max(end, f.islands[start])
	for next, ok := f.islands[f.whole]; ok; next, ok = f.islands[f.whole] {
		delete(f.islands, f.whole)
		f.whole = next
	}
	return nil
}

// missing is how many bytes of a size are still to come. Ranges that overlap, or reach beyond it, are refused: they would
// hide a hole.
func (f *imageFile) missing(size uint64) (uint64, error) {
	got := f.whole
	for start, end := range f.islands {
		if start < f.whole || end > size {
			return 0, fmt.Errorf("%w: bytes %d to %d of an image of %d came out of place", wire.ErrMalformed, start, end, size)
		}
		got += end - start
	}
	if got > size {
		return 0, fmt.Errorf("%w: %d bytes of an image came, %d are listed", wire.ErrMalformed, got, size)
	}
	return size - f.whole, nil
}

func newImageReceiver(dir string, most uint64) (*imageReceiver, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open image directory: %w", err)
	}
	return &imageReceiver{root: root, most: most, files: make(map[string]*imageFile), grown: make(chan struct{}, 1)}, nil
}

// take writes the chunk that a lane has brought.
func (r *imageReceiver) take(frame []byte) error {
	chunk, err := wire.DecodeChunk(frame)
	if err != nil {
		return err
	}
	return r.write(chunk)
}

func (r *imageReceiver) write(c wire.Chunk) error {
	file, err := r.file(c.Name)
	if err != nil {
		return err
	}
	if err := r.count(uint64(len(c.Data))); err != nil {
		return err
	}
	if _, err := file.WriteAt(c.Data, int64(c.Offset)); err != nil {
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			return fmt.Errorf("write image %s: %w", c.Name, wire.ErrNoSpace)
		}
		return fmt.Errorf("write image %s: %w", c.Name, err)
	}
	r.mu.Lock()
	err = file.add(c.Offset, c.Offset+uint64(len(c.Data)))
	r.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case r.grown <- struct{}{}:
	default:
	}
	return nil
}

func (r *imageReceiver) count(bytes uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.came += bytes; r.most > 0 && r.came > r.most {
		return fmt.Errorf("%w: more than %d bytes of images came (--max-size there)", wire.ErrFull, r.most)
	}
	return nil
}

func (r *imageReceiver) file(name string) (*imageFile, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if file := r.files[name]; file != nil {
		return file, nil
	}
	if len(r.files) == wire.MaxImages {
		return nil, fmt.Errorf("%w: more than %d image files", wire.ErrMalformed, wire.MaxImages)
	}
	file, err := r.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create image: %w", err)
	}
	r.files[name] = &imageFile{File: file, islands: make(map[uint64]uint64)}
	return r.files[name], nil
}

// Complete waits until every listed file is there whole, and makes the empty ones. A set that has files which are not
// listed, or larger than listed, is refused.
func (r *imageReceiver) Complete(ctx context.Context, listed []*wire.ImageFile) error {
	for _, f := range listed {
		file, err := r.file(f.GetName())
		if err != nil {
			return err
		}
		if err := file.Chmod(os.FileMode(f.GetMode() & 0o700)); err != nil {
			return fmt.Errorf("set mode of image: %w", err)
		}
	}
	for {
		missing, err := r.missing(listed)
		if err != nil || missing == 0 {
			return err
		}
		select {
		case <-r.grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *imageReceiver) missing(listed []*wire.ImageFile) (bytes uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.files) != len(listed) {
		return 0, fmt.Errorf("%w: %d image files came, %d are listed", wire.ErrMalformed, len(r.files), len(listed))
	}
	for _, f := range listed {
		file := r.files[f.GetName()]
		if file == nil { // another one is listed twice
			return 0, fmt.Errorf("%w: %s is not listed once", wire.ErrMalformed, f.GetName())
		}
		left, err := file.missing(f.GetSize())
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f.GetName(), err)
		}
		bytes += left
	}
	return bytes, nil
}

// Close closes the files; they stay on disk.
func (r *imageReceiver) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.root.Close()
	for _, file := range r.files {
		err = errors.Join(err, file.Close())
	}
	return err
}
