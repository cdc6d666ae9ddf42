package feed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/hole"
)

// keepFiles duplicates the caller's.
func (s *Supervisor) keepFiles(o *Options) error {
	for _, p := range o.Store {
		file, err := duplicate(p.File)
		if err != nil {
			return err
		}
		s.store = append(s.store, Part{File: file, Slot: p.Slot, Digests: p.Digests})
		if p.Digests == nil {
			continue
		}
		if s.digests == nil {
			if s.digests, err = hole.Memory("feed-digests"); err != nil {
				return err
			}
		}
		for _, sum := range p.Digests.Sums {
			if _, err := s.digests.Write(sum[:]); err != nil {
				return fmt.Errorf("keep digests: %w", err)
			}
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
	if o.Lock != nil {
		var err error
		if s.lock, err = duplicate(o.Lock); err != nil {
			return err
		}
	}
	return nil
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// order is what every feeder is told.
func (s *Supervisor) order() order {
	o := order{Slots: []uint64{}, Punch: s.options.Punch, Disk: s.options.Disk, Digests: s.digests != nil, Lock: s.lock != nil, Late: s.late != nil}
	for _, p := range s.store {
		o.Slots = append(o.Slots, p.Slot)
		chunk := int64(0)
		if p.Digests != nil {
			chunk = p.Digests.Chunk
		}
		o.Chunks = append(o.Chunks, chunk)
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

// pipeWith is the read end of a pipe with the text in it.
func pipeWith(text []byte) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(w, bytes.NewReader(text))
	return r, errors.Join(err, w.Close())
}
