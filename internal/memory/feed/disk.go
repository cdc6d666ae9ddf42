package feed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/livemigrate/migrate/internal/memory/packed"
	"github.com/livemigrate/migrate/internal/sys/mapping"
)

// ErrStore: pages cannot be read, or are not those that were stored. Kill the tree: it waits for them.
var ErrStore = errors.New("the memory cannot be read")

// Digests are the XXH3-128 of a file's chunks.
type Digests struct {
	Chunk int64      // bytes, a multiple of memory.PageSize; the last one may be shorter
	Sums  [][16]byte // one for each
}

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
	size   int64 // of the file, or of what is compressed in it
	chunk  int64
	sums   [][16]byte // none for whatever it is
	loaded []atomic.Bool
	packed *packed.File // nil for a file of plain pages
	wanted []uint64     // of a compressed one: a bit for each page that the layout names
}

// openDisk is openFiles of files on a disk.
func openDisk(parts []Part) (*diskSource, error) {
	files, err := openFiles(parts, false)
	if err != nil {
		return nil, err
	}
	s := &diskSource{fileSource: files}
	for i := range files.parts { // openFiles leaves out what is empty
		d, err := openPart(&files.parts[i].Part)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.disks = append(s.disks, *d)
	}
	return s, nil
}

func openPart(p *Part) (*disk, error) {
	info, err := p.File.Stat()
	if err != nil {
		return nil, err
	}
	d := &disk{size: info.Size(), chunk: diskChunk}
	switch {
	case p.Packed != nil:
		d.size, d.chunk = p.Packed.Size, p.Packed.Chunk
		if d.packed, err = packed.NewFile(p.File, p.Packed); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrStore, p.File.Name(), err)
		}
		d.wanted = make([]uint64, d.size/pageSize/64+1)
	case p.Digests != nil:
		d.chunk, d.sums = p.Digests.Chunk, p.Digests.Sums
	}
	chunks := (d.size + d.chunk - 1) / d.chunk
	if p.Digests != nil && int64(len(d.sums)) < chunks {
		return nil, fmt.Errorf("%w: %s has more pages than digests", ErrStore, p.File.Name())
	}
	d.loaded = make([]atomic.Bool, chunks)
	return d, nil
}

// check also notes which pages of compressed files will be needed: others are not kept when their chunk is unpacked.
func (s *diskSource) check(l *Layout) error {
	if err := s.fileSource.check(l); err != nil {
		return err
	}
	for _, space := range l.Spaces {
		for _, r := range space.Runs {
			for slot, end := r.Slot, r.Slot+r.Pages; slot != 0 && slot < end; {
				p, d, offset := s.at(slot)
				page := uint64(offset) / pageSize
				n := min(end-slot, p.pages-page)
				for i := page; d.packed != nil && i < page+n; i++ {
					d.wanted[i/64] |= 1 << (i % 64)
				}
				slot += n
			}
		}
	}
	return nil
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
	if d.packed != nil {
		return s.unpack(p, d, start, end)
	}
	if d.sums == nil {
		view := p.mapped[start:min(end, int64(len(p.mapped)))]
		if err := mapping.Populate(view); !errors.Is(err, os.ErrInvalid) { // else the kernel is older than the call
			return p.failed(start, end, err)
		}
	}
	buffer := s.buffer(d.chunk)
	defer s.spare.Put(buffer) //nolint:staticcheck // a slice's header is nothing beside its megabyte
	buffer = buffer[:end-start]
	if _, err := p.File.ReadAt(buffer, start); err != nil {
		return p.failed(start, end, err)
	}
	if d.sums == nil {
		return nil
	}
	if xxh3.Hash128(buffer).Bytes() != d.sums[start/d.chunk] {
		return fmt.Errorf("%w: %s: bytes %d to %d differ from their digest", ErrStore, p.File.Name(), start, end)
	}
	return nil
}

func (s *diskSource) buffer(size int64) []byte {
	buffer, _ := s.spare.Get().([]byte)
	if int64(cap(buffer)) < size {
		buffer = make([]byte, size)
	}
	return buffer[:size]
}

// unpack brings a compressed chunk in. Not right into its place: pages there are freed at any time, and those behind them are made
// of them.
func (s *diskSource) unpack(p *filePart, d *disk, start, end int64) error {
	buffer := s.buffer(d.chunk)
	defer s.spare.Put(buffer) //nolint:staticcheck // a slice's header is nothing beside its bytes
	plain, err := d.packed.Decode(int(start/d.chunk), buffer)
	if errors.Is(err, packed.ErrDamaged) {
		return fmt.Errorf("%w: %s: %w", ErrStore, p.File.Name(), err)
	}
	if err != nil {
		return p.failed(start, end, err)
	}
	for at := start; at < end; at += pageSize {
		if page := at / pageSize; d.wanted[page/64]&(1<<(page%64)) != 0 {
			copy(p.mapped[at:at+pageSize], plain[at-start:])
		}
	}
	return nil
}

// Punch frees what was unpacked; the files stay.
func (s *diskSource) Punch(slot, pages uint64) error {
	for pages > 0 {
		p, d, offset := s.at(slot)
		if p == nil {
			return fmt.Errorf("%w: slot %d", errNoPage, slot)
		}
		n := min(pages, p.pages-uint64(offset)/pageSize)
		if d.packed != nil {
			if err := mapping.Drop(p.mapped[offset : offset+int64(n*pageSize)]); err != nil {
				return err
			}
		}
		slot, pages = slot+n, pages-n
	}
	return nil
}

func (s *diskSource) Close() error {
	var err error
	for i := range s.disks {
		if s.disks[i].packed != nil {
			err = errors.Join(err, s.disks[i].packed.Close())
		}
	}
	return errors.Join(err, s.fileSource.Close())
}

func (p *filePart) failed(start, end int64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("read bytes %d to %d of %s: %w", start, end, p.File.Name(), err)
}
