package feed

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/livemigrate/migrate/internal/sys/hole"
)

// keepFiles duplicates the caller's.
func (s *Supervisor) keepFiles(o *Options) error {
	for _, p := range o.Store {
		file, err := duplicate(p.File)
		if err != nil {
			return err
		}
		p.File = file
		s.store = append(s.store, p)
		if p.Digests == nil && p.Packed == nil {
			continue
		}
		if s.digests == nil {
			if s.digests, err = hole.Memory("feed-digests"); err != nil {
				return err
			}
		}
		if err := writeDigests(s.digests, &p); err != nil {
			return err
		}
	}
	if o.Late {
		var err error
		if s.late, err = hole.Memory("feed-arrivals"); err != nil {
			return err
		}
		if s.wanted, s.wants, err = os.Pipe(); err != nil {
			return fmt.Errorf("make pipe of wanted pages: %w", err)
		}
	}
	if o.StateDir == "" {
		return nil
	}
	var err error
	if s.guard, err = takeGuard(o.StateDir); err != nil {
		return err
	}
	s.lock, err = takeLock(o.StateDir)
	return err
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := duplicateNumber(f)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// order is what every feeder is told.
func (s *Supervisor) order() order {
	o := order{Slots: []uint64{}, Punch: s.options.Punch, Disk: s.options.Disk, Digests: s.digests != nil, Lock: s.lock != nil, Late: s.late != nil}
	for _, p := range s.store {
		o.Slots = append(o.Slots, p.Slot)
		chunk, size := int64(0), int64(0)
		switch {
		case p.Packed != nil:
			chunk, size = p.Packed.Chunk, p.Packed.Size
		case p.Digests != nil:
			chunk = p.Digests.Chunk
		}
		o.Chunks, o.Sizes = append(o.Chunks, chunk), append(o.Sizes, size)
	}
	return o
}

// inherited are the files that it finds from storeFD on.
func (s *Supervisor) inherited() []*os.File {
	var files []*os.File
	for _, p := range s.store {
		files = append(files, p.File)
	}
	for _, f := range []*os.File{s.digests, s.lock, s.late, s.wants} {
		if f != nil {
			files = append(files, f)
		}
	}
	return files
}

// orderFile is a file with the order in it. It stays open in feeder and holder, like all that a successor needs.
func (s *Supervisor) orderFile() (*os.File, error) {
	text, err := json.Marshal(s.order())
	if err != nil {
		return nil, err
	}
	file, err := hole.Memory("feed-order")
	if err != nil {
		return nil, err
	}
	if _, err := file.Write(text); err != nil {
		return nil, errors.Join(fmt.Errorf("write order: %w", err), file.Close())
	}
	return file, nil
}
