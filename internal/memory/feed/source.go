package feed

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/livemigrate/migrate/internal/memory/packed"
	"github.com/livemigrate/migrate/internal/sys/hole"
	"github.com/livemigrate/migrate/internal/sys/mapping"
)

// Source is the store, as the feeder sees it: pages by their slots, never 0. It is used by several goroutines at once.
type Source interface {
	// Has tells how many of the pages from slot on, up to pages, can be viewed now.
	Has(slot, pages uint64) uint64
	// Request returns when Has tells of the page; an urgent one, for which a thread waits, comes ahead of its turn. Where all
	// pages are there from the beginning it is never called. An error, which may come of ctx, is no verdict: the feeder asks
	// again.
	Request(ctx context.Context, slot uint64, urgent bool) error
	// View is the memory of pages that Has told of, valid until Close. It may be less than asked for, but not nothing.
	View(slot, pages uint64) ([]byte, error)
	// Punch frees pages that nobody is going to view again.
	Punch(slot, pages uint64) error
	Close() error
}

// Part is a file of the store.
type Part struct {
	File *os.File
	Slot uint64 // that of the page at the file's beginning

	Digests *Digests      // what the file has to be, with Options.Disk; nil for whatever it is
	Packed  *packed.Index // with Options.Disk: its pages are compressed; nil if they are not
}

// fileSource is a store that is complete: a file, or the page files of a checkpoint one behind the other.
type fileSource struct {
	parts []filePart
	punch bool
}

type filePart struct {
	Part
	pages  uint64
	mapped []byte
}

var errNoPage = errors.New("no such page in the store")

// openFiles maps the parts, whose files may be closed then only if nothing is punched. A file of the store counts with the
// size that it has now.
func openFiles(parts []Part, punch bool) (*fileSource, error) {
	s := &fileSource{punch: punch}
	for _, p := range parts {
		info, err := p.File.Stat()
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		part := filePart{Part: p, pages: uint64(info.Size()) / pageSize}
		if p.Packed != nil {
			part.pages = uint64(p.Packed.Size) / pageSize
		}
		if part.pages == 0 {
			continue
		}
		if p.Packed != nil {
			part.mapped, err = mapping.Private(int64(part.pages * pageSize))
		} else {
			part.mapped, err = mapping.Shared(p.File, 0, int64(part.pages*pageSize), false)
		}
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.parts = append(s.parts, part)
	}
	return s, nil
}

func (s *fileSource) find(slot uint64) (*filePart, uint64) {
	for i := range s.parts {
		p := &s.parts[i]
		if slot >= p.Slot && slot-p.Slot < p.pages {
			return p, slot - p.Slot
		}
	}
	return nil, 0
}

func (s *fileSource) Has(_, pages uint64) uint64 { return pages }

func (s *fileSource) Request(_ context.Context, slot uint64, _ bool) error {
	return fmt.Errorf("%w: slot %d", errNoPage, slot)
}

func (s *fileSource) View(slot, pages uint64) ([]byte, error) {
	p, page := s.find(slot)
	if p == nil {
		return nil, fmt.Errorf("%w: slot %d", errNoPage, slot)
	}
	pages = min(pages, p.pages-page)
	return p.mapped[page*pageSize : (page+pages)*pageSize], nil
}

func (s *fileSource) Punch(slot, pages uint64) error {
	if !s.punch {
		return nil
	}
	for pages > 0 {
		p, page := s.find(slot)
		if p == nil {
			return fmt.Errorf("%w: slot %d", errNoPage, slot)
		}
		n := min(pages, p.pages-page)
		if err := hole.Punch(p.File, int64(page*pageSize), int64(n*pageSize)); err != nil {
			return err
		}
		slot, pages = slot+n, pages-n
	}
	return nil
}

// check refuses a layout that names pages which no part has.
func (s *fileSource) check(l *Layout) error {
	for _, space := range l.Spaces {
		for _, r := range space.Runs {
			for slot, pages := r.Slot, r.Pages; slot != 0 && pages > 0; {
				p, page := s.find(slot)
				if p == nil {
					return fmt.Errorf("%w: process %d needs slot %d, at %#x", errNoPage, space.Pid, slot, r.Start)
				}
				n := min(pages, p.pages-page)
				slot, pages = slot+n, pages-n
			}
		}
	}
	return nil
}

func (s *fileSource) Close() error {
	var err error
	for _, p := range s.parts {
		err = errors.Join(err, mapping.Unmap(p.mapped))
	}
	s.parts = nil
	return err
}

func openSource(o *order, files []*os.File, digests, late *os.File, wanted int) (Source, error) {
	parts := make([]Part, len(files))
	for i, file := range files {
		parts[i] = Part{File: file, Slot: o.Slots[i]}
	}
	if !o.Disk {
		return openMemory(parts, o.Punch, late, wanted)
	}
	if digests != nil {
		if err := readDigests(digests, o, parts); err != nil {
			return nil, err
		}
	}
	return openDisk(parts)
}

// openMemory opens a store in memory, which may not be complete.
func openMemory(parts []Part, punch bool, late *os.File, wanted int) (Source, error) {
	files, err := openFiles(parts, punch)
	if err != nil || late == nil {
		return files, err
	}
	a, err := openArrivals(late, 0, 0)
	if err != nil {
		return nil, errors.Join(err, files.Close())
	}
	if a == nil { // nothing is owed
		return files, nil
	}
	return newLateSource(files, a, wanted), nil
}

// ready maps pages before the gate is taken, which they would else be brought in under.
func ready(view []byte) {
	_ = mapping.Populate(view) // without it the kernel brings them in one by one
}
