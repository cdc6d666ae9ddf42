package feed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/livemigrate/migrate/internal/sys/mapping"
)

// ErrStore: pages cannot be read, or are not those that were stored. Kill the tree: it waits for them.
var ErrStore = errors.New("the memory cannot be read")

// Digests are the XXH3-128 of a file's chunks.
type Digests struct {
	Chunk int64      // bytes, a multiple of memory.PageSize; the last one may be shorter
	Sums  [][16]byte // one for each
}

// digestSize is that of one sum.
const digestSize = 16

// diskChunk is what is read at a time where there are no digests.
const diskChunk = 1 << 20

// A disk may fail for a moment, and so may a file of the network.
const (
	readTries = 5
	readWait  = time.Second
)

// diskSource is files that reading takes a while of: a page can be viewed once its chunk was read, and was right.
type diskSource struct {
	*fileSource
	disks []disk // by part
	locks [64]sync.Mutex
	spare sync.Pool // of buffers: fresh memory would cost more than the reading
}

// disk is a part's chunks.
type disk struct {
	size   int64 // of the file
	chunk  int64
	sums   []byte
	loaded []atomic.Bool
}

// openDisk is openFiles of files on a disk. The sums are those of all parts one behind the other; a part whose chunk is 0
// has none.
func openDisk(parts []Part, chunks []int64, sums []byte) (*diskSource, error) {
	files, err := openFiles(parts, false)
	if err != nil {
		return nil, err
	}
	s := &diskSource{fileSource: files}
	k := 0
	for i, p := range parts {
		info, err := p.File.Stat()
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		d := disk{size: info.Size(), chunk: diskChunk}
		if chunks[i] > 0 {
			d.chunk = chunks[i]
			n := (d.size + d.chunk - 1) / d.chunk * digestSize
			if int64(len(sums)) < n {
				return nil, errors.Join(fmt.Errorf("%w: %s has more pages than digests", ErrStore, p.File.Name()), s.Close())
			}
			d.sums, sums = sums[:n], sums[n:]
		}
		d.loaded = make([]atomic.Bool, (d.size+d.chunk-1)/d.chunk)
		if k < len(files.parts) && files.parts[k].File == p.File { // openFiles leaves out what is empty
			s.disks = append(s.disks, d)
			k++
		}
	}
	return s, nil
}

// at is the chunk of a page, and the part that it is of.
func (s *diskSource) at(slot uint64) (p *filePart, d *disk, offset int64) {
	for i := range s.parts {
		p := &s.parts[i]
		if slot >= p.Slot && slot-p.Slot < p.pages {
			return p, &s.disks[i], int64((slot - p.Slot) * pageSize)
		}
	}
	return nil, nil, 0
}

// Has counts as far as chunks were read.
func (s *diskSource) Has(slot, pages uint64) uint64 {
	p, d, offset := s.at(slot)
	if p == nil {
		return pages // View says what is wrong
	}
	end := offset
	for i := offset / d.chunk; i < int64(len(d.loaded)) && d.loaded[i].Load(); i++ {
		end = min((i+1)*d.chunk, d.size)
		if end-offset >= int64(pages*pageSize) {
			break
		}
	}
	return min(pages, uint64(end-offset)/pageSize)
}

// Request reads a page's chunk, and compares it with its digest. The error is ErrStore when that is to no avail.
func (s *diskSource) Request(ctx context.Context, slot uint64, _ bool) error {
	p, d, offset := s.at(slot)
	if p == nil {
		return fmt.Errorf("%w: slot %d", errNoPage, slot)
	}
	i := offset / d.chunk
	lock := &s.locks[i%int64(len(s.locks))]
	lock.Lock()
	defer lock.Unlock()
	if d.loaded[i].Load() {
		return nil
	}
	start, end := i*d.chunk, min((i+1)*d.chunk, d.size)
	for try := 1; ; try++ {
		err := s.load(p, d, start, end)
		if err == nil {
			d.loaded[i].Store(true)
			return nil
		}
		if errors.Is(err, ErrStore) {
			return err
		}
		if try == readTries {
			return fmt.Errorf("%w: %w", ErrStore, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(readWait):
		}
	}
}

// load brings a chunk in. It is read, and not looked at in the mapping, where a file that was cut means SIGBUS.
func (s *diskSource) load(p *filePart, d *disk, start, end int64) error {
	if d.sums == nil {
		view := p.mapped[start:min(end, int64(len(p.mapped)))]
		if err := mapping.Populate(view); !errors.Is(err, os.ErrInvalid) { // else the kernel is older than the call
			return p.failed(start, end, err)
		}
	}
	buffer, _ := s.spare.Get().([]byte)
	if int64(cap(buffer)) < end-start {
		buffer = make([]byte, d.chunk)
	}
	defer s.spare.Put(buffer) //nolint:staticcheck // a slice's header is nothing beside its megabyte
	buffer = buffer[:end-start]
	if _, err := p.File.ReadAt(buffer, start); err != nil {
		return p.failed(start, end, err)
	}
	if d.sums == nil {
		return nil
	}
	want := d.sums[start/d.chunk*digestSize:][:digestSize]
	if got := xxh3.Hash128(buffer).Bytes(); !bytes.Equal(got[:], want) {
		return fmt.Errorf("%w: %s: bytes %d to %d differ from their digest", ErrStore, p.File.Name(), start, end)
	}
	return nil
}

func (p *filePart) failed(start, end int64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("read bytes %d to %d of %s: %w", start, end, p.File.Name(), err)
}
