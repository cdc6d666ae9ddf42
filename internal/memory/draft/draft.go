// Package draft keeps copies of pages while they still change: a page that is copied again takes the place of what it was.
// When the last of them is in, the pages are read in the order of their addresses, and what is read is given back to the
// file system.
//
// The pages of an address space lie in chunks of 2 MiB, which have places in one sparse file in the order in which they
// were first met. Within a chunk a page's place is its address's, so that nothing ever moves.
package draft

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/sys/hole"
)

var (
	// ErrNoRoom: the file system is full. Free space there, or write somewhere else.
	ErrNoRoom = errors.New("no room for copies of pages")
	// ErrMissing: a page was never copied. The text names its address.
	ErrMissing = errors.New("page was not copied")
)

const (
	chunkPages = 512
	chunkBytes = chunkPages * memory.PageSize
)

// Draft is safe for use by several goroutines, as long as no two copy one page.
type Draft struct {
	file *os.File
	dir  string

	mu     sync.Mutex
	end    int64 // of the last chunk's place
	spaces map[uint64]map[uint64]*chunk
}

// chunk is where the pages of one chunk are, and which of them there are.
type chunk struct {
	place int64
	has   [chunkPages / 64]uint64
}

// Open makes an empty draft in a file without a name in dir, which is gone when it is closed, or its owner killed.
func Open(dir string) (*Draft, error) {
	file, err := hole.Nameless(dir)
	if err != nil {
		return nil, fmt.Errorf("open draft: %w", err)
	}
	return &Draft{file: file, dir: dir, spaces: map[uint64]map[uint64]*chunk{}}, nil
}

// Close frees it.
func (d *Draft) Close() error { return d.file.Close() }

// Put copies pages of an address space, which lie in data one range behind the other.
func (d *Draft) Put(space uint64, ranges []memory.Range, data []byte) error {
	for _, r := range ranges {
		for r.Pages > 0 {
			piece := firstPiece(r)
			if err := d.put(space, piece, data[:piece.Bytes()]); err != nil {
				return err
			}
			data = data[piece.Bytes():]
			r = memory.Range{Start: piece.End(), Pages: r.Pages - piece.Pages}
		}
	}
	return nil
}

func (d *Draft) put(space uint64, piece memory.Range, data []byte) error {
	c := d.chunk(space, piece.Start)
	if _, err := d.file.WriteAt(data, c.place+int64(piece.Start%chunkBytes)); err != nil {
		if hole.NoRoom(err) {
			return fmt.Errorf("%w in %s: free space there (%w)", ErrNoRoom, d.dir, err)
		}
		return fmt.Errorf("copy pages: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c.mark(piece, true)
	return nil
}

// chunk finds the chunk of an address, or gives it a place.
func (d *Draft) chunk(space, address uint64) *chunk {
	d.mu.Lock()
	defer d.mu.Unlock()
	chunks := d.spaces[space]
	if chunks == nil {
		chunks = map[uint64]*chunk{}
		d.spaces[space] = chunks
	}
	c := chunks[address/chunkBytes]
	if c == nil {
		c = &chunk{place: d.end}
		d.end += chunkBytes
		chunks[address/chunkBytes] = c
	}
	return c
}

// Gone forgets pages that are not there any more.
func (d *Draft) Gone(space uint64, ranges []memory.Range) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range ranges {
		for r.Pages > 0 {
			piece := firstPiece(r)
			if c := d.spaces[space][piece.Start/chunkBytes]; c != nil {
				c.mark(piece, false)
			}
			r = memory.Range{Start: piece.End(), Pages: r.Pages - piece.Pages}
		}
	}
}

// Keep forgets all pages of an address space that are in none of the ranges.
func (d *Draft) Keep(space uint64, ranges []memory.Range) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	chunks := d.spaces[space]
	kept := map[uint64]*chunk{}
	for _, r := range ranges {
		for r.Pages > 0 {
			piece := firstPiece(r)
			if key := piece.Start / chunkBytes; chunks[key] != nil {
				if kept[key] == nil {
					kept[key] = &chunk{}
				}
				kept[key].mark(piece, true)
			}
			r = memory.Range{Start: piece.End(), Pages: r.Pages - piece.Pages}
		}
	}
	for key, c := range chunks {
		if kept[key] != nil {
			for i := range c.has {
				c.has[i] &= kept[key].has[i]
			}
			continue
		}
		if err := d.free(c); err != nil {
			return err
		}
		delete(chunks, key)
	}
	return nil
}

// KeepSpaces forgets all address spaces that keep does not want.
func (d *Draft) KeepSpaces(keep func(space uint64) bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for space, chunks := range d.spaces {
		if keep(space) {
			continue
		}
		for _, c := range chunks {
			if err := d.free(c); err != nil {
				return err
			}
		}
		delete(d.spaces, space)
	}
	return nil
}

// free gives a chunk's pages back to the file system.
func (d *Draft) free(c *chunk) error {
	if err := hole.Punch(d.file, c.place, chunkBytes); err != nil {
		return fmt.Errorf("free copies of pages: %w", err)
	}
	return nil
}

// Missing are the pages of the ranges that were not copied.
func (d *Draft) Missing(space uint64, ranges []memory.Range) []memory.Range {
	d.mu.Lock()
	defer d.mu.Unlock()
	var missing []memory.Range
	for _, r := range ranges {
		for r.Pages > 0 {
			piece := firstPiece(r)
			c := d.spaces[space][piece.Start/chunkBytes]
			if c == nil {
				missing = join(missing, piece)
			} else {
				missing = c.missing(missing, piece)
			}
			r = memory.Range{Start: piece.End(), Pages: r.Pages - piece.Pages}
		}
	}
	return missing
}

// firstPiece is the first part of a range that is in one chunk.
func firstPiece(r memory.Range) memory.Range {
	end := min(r.End(), (r.Start/chunkBytes+1)*chunkBytes)
	return memory.Range{Start: r.Start, Pages: (end - r.Start) / memory.PageSize}
}

// masks calls f for the words of the bitmap that a piece touches.
func masks(piece memory.Range, f func(word int, mask uint64)) {
	first := piece.Start % chunkBytes / memory.PageSize
	for i, end := first, first+piece.Pages; i < end; {
		word := i / 64
		stop := min(end, (word+1)*64)
		mask := ^uint64(0) << (i % 64)
		if rest := stop % 64; rest != 0 {
			mask &= 1<<rest - 1
		}
		f(int(word), mask)
		i = stop
	}
}

func (c *chunk) mark(piece memory.Range, has bool) {
	masks(piece, func(word int, mask uint64) {
		if has {
			c.has[word] |= mask
		} else {
			c.has[word] &^= mask
		}
	})
}

// missing appends the pages of a piece that the chunk does not have.
func (c *chunk) missing(to []memory.Range, piece memory.Range) []memory.Range {
	start := piece.Start / chunkBytes * chunkBytes
	masks(piece, func(word int, mask uint64) {
		for lack := mask &^ c.has[word]; lack != 0; lack &= lack - 1 {
			page := uint64(word*64 + bits.TrailingZeros64(lack))
			to = join(to, memory.Range{Start: start + page*memory.PageSize, Pages: 1})
		}
	})
	return to
}

// join appends a range, to the last one where they touch.
func join(ranges []memory.Range, r memory.Range) []memory.Range {
	if n := len(ranges); n > 0 && ranges[n-1].End() == r.Start {
		ranges[n-1].Pages += r.Pages
		return ranges
	}
	return append(ranges, r)
}
