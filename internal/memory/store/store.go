// Package store keeps the pages that arrived until they are fed to the restored tasks: slot s is the page at s*4096 of one
// file, in memory (memfd) or, where that is wanted, in a directory. What is fed is punched out, so that the pages are not there twice.
package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/pages"
	"github.com/livemigrate/migrate/internal/sys/hole"
)

var (
	// ErrNoRoom: the file system of the store, or the memory it lies in, is full.
	ErrNoRoom = errors.New("no room for the store of pages")
	// ErrSlot: slots outside of the store.
	ErrSlot = errors.New("slot is not in the store of pages")
)

// Options are where a store is and how large it may get.
type Options struct {
	Dir  string   // a directory that the file is in, without a name; memory if empty
	File *os.File // of a store that another process has opened, instead of an empty one; nil for none. Close closes it.
	// Stored, if not nil, is told of slots whose pages have come, by several goroutines.
	Stored func(slots pages.Slots)
	// Scattered: pages may come in any order, while others are fed already. Else they come in about the order of their slots, and
	// a store in memory grows in pieces, which takes the kernel a fifth of the time.
	Scattered bool
	Limit     uint64 // bytes of all pages at most; a multiple of the page size. 0: no limit but the machine's
}

// Store is safe for use by several goroutines, as long as no two write one slot.
type Store struct {
	file  *os.File
	where string
	last  uint64 // slot
	told  func(pages.Slots)
	idle  sync.Pool

	pieces  bool // the file is to grow by hole.Piece
	growing sync.Mutex
	end     int64 // of such a file; under growing
}

// Open makes an empty store, or goes on with one. nil options mean one in memory without a limit. The caller closes it.
func Open(options *Options) (*Store, error) {
	o := Options{}
	if options != nil {
		o = *options
	}
	s := &Store{where: o.Dir, last: pages.MaxSlot, told: o.Stored}
	if o.Limit > 0 {
		s.last = min(o.Limit/memory.PageSize, pages.MaxSlot)
	}
	var err error
	if o.File != nil {
		s.where, s.file = "memory", o.File
		return s, nil
	}
	switch {
	case o.Dir != "":
		s.file, err = hole.Nameless(o.Dir)
	case o.Scattered:
		s.where = "memory"
		s.file, err = hole.Memory("pages")
	default:
		s.where = "memory"
		s.file, s.pieces, err = hole.Pieces("pages")
	}
	if err != nil {
		return nil, fmt.Errorf("open store of pages: %w", err)
	}
	return s, nil
}

// Last is the last slot that the store may hold: what the ledger at the source must keep to.
func (s *Store) Last() uint64 { return s.last }

// Put checks a frame and stores its pages. A frame that was altered, or that names slots outside of the store, is refused with one of
// the errors of package pages, and nothing of it is stored; ErrNoRoom may come when some of it is.
func (s *Store) Put(frame []byte) error {
	d, _ := s.idle.Get().(*pages.Decoder)
	if d == nil {
		var err error
		if d, err = pages.NewDecoder(s.last); err != nil {
			return fmt.Errorf("store pages: %w", err)
		}
	}
	err := d.Decode(frame, s.write)
	s.idle.Put(d)
	if err != nil {
		return fmt.Errorf("store pages: %w", err)
	}
	return nil
}

func (s *Store) write(slots pages.Slots, bytes []byte) error {
	err := s.writeAt(bytes, int64(slots.First*memory.PageSize))
	if err == nil {
		if s.told != nil {
			s.told(slots)
		}
		return nil
	}
	if !hole.NoRoom(err) {
		return err
	}
	cure := "free memory there, raise the memory limit of the receiving process, or keep the store in a directory"
	if s.where != "memory" {
		cure = "free space there, or keep the store in another directory or in memory"
	}
	used, usedErr := s.Used()
	return errors.Join(fmt.Errorf("%w in %s, which has %d MiB of it: %s (%w)", ErrNoRoom, s.where, used>>20, cure, err), usedErr)
}

func (s *Store) writeAt(bytes []byte, off int64) error {
	for s.pieces && len(bytes) > 0 {
		n := min(int64(len(bytes)), hole.Piece-off%hole.Piece)
		if err := s.writePiece(bytes[:n], off); err != nil {
			return err
		}
		bytes, off = bytes[n:], off+n
	}
	if len(bytes) == 0 {
		return nil
	}
	_, err := s.file.WriteAt(bytes, off)
	return err
}

// writePiece writes a piece, or a part of one. Whoever makes the file longer does it by whole pieces, and alone: what lies behind the
// end is nobody's yet.
func (s *Store) writePiece(bytes []byte, off int64) error {
	written, err := s.grow(bytes, off)
	if err != nil || written {
		return err
	}
	_, err = s.file.WriteAt(bytes, off)
	return err
}

// farthest is how far behind the end, in bytes, a page may lie whose way there is filled with zeros: lanes overtake each other by less.
const farthest = 64 * hole.Piece

// grow makes the file reach beyond off. written: the bytes are in it already.
func (s *Store) grow(bytes []byte, off int64) (written bool, err error) {
	s.growing.Lock()
	defer s.growing.Unlock()
	if off-s.end > farthest { // a peer may have any page come first, and must not fill the memory by that: a hole remains
		if _, err := s.file.WriteAt(bytes, off); err != nil {
			return false, err
		}
		s.end = off - off%hole.Piece + hole.Piece
		return true, nil
	}
	for ; s.end <= off; s.end += hole.Piece {
		piece := zeroPiece[:]
		if written = s.end == off && len(bytes) == hole.Piece; written {
			piece = bytes
		}
		if _, err := s.file.WriteAt(piece, s.end); err != nil {
			return false, err
		}
	}
	return written, nil
}

// zeroPiece is never written to.
var zeroPiece [hole.Piece]byte

// ReadAt reads pages from a slot on. Slots that were never put, or were punched, are zeros.
func (s *Store) ReadAt(buf []byte, slot uint64) error {
	if err := s.check(pages.Slots{First: slot, Pages: uint64(len(buf)+memory.PageSize-1) / memory.PageSize}); err != nil {
		return err
	}
	n, err := s.file.ReadAt(buf, int64(slot*memory.PageSize))
	if n < len(buf) && errors.Is(err, io.EOF) {
		clear(buf[n:]) // behind the last slot that was ever put
		return nil
	}
	if err != nil {
		return fmt.Errorf("read slot %d: %w", slot, err)
	}
	return nil
}

// Punch frees the memory, or the disk, of slots that nobody needs any more.
func (s *Store) Punch(slots pages.Slots) error {
	if err := s.check(slots); err != nil {
		return err
	}
	if err := hole.Punch(s.file, int64(slots.First*memory.PageSize), int64(slots.Pages*memory.PageSize)); err != nil {
		return fmt.Errorf("free slots %d to %d: %w", slots.First, slots.First+slots.Pages-1, err)
	}
	return nil
}

func (s *Store) check(slots pages.Slots) error {
	if slots.First == 0 || slots.Pages == 0 || slots.First > s.last || slots.Pages-1 > s.last-slots.First {
		return fmt.Errorf("%w: %d slots from %d on; the last is %d", ErrSlot, slots.Pages, slots.First, s.last)
	}
	return nil
}

// Used is how many bytes the store takes now, as the kernel counts them.
func (s *Store) Used() (uint64, error) {
	n, err := hole.Allocated(s.file)
	if err != nil {
		return 0, fmt.Errorf("measure store of pages: %w", err)
	}
	return n, nil
}

// File is the store's file, to be handed to the process that feeds. It stays the store's to close.
func (s *Store) File() *os.File { return s.file }

// Close frees the store, unless another process has its file open.
func (s *Store) Close() error { return s.file.Close() }
