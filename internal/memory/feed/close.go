package feed

import (
	"errors"
	"os"
)

// Close ends the feeding and frees everything. The processes that are not fed must be dead, or never have been: a living one
// would read zeros where its memory is missing.
func (s *Supervisor) Close() error {
	if !s.end() {
		return nil
	}
	s.endHolders(true)
	var err error
	if s.lock != nil {
		_, err = s.lock.WriteAt(mark(s.err == nil && s.Missing() == 0), 0)
	}
	return errors.Join(err, s.release())
}

// Leave ends the work here without an end of the feeding: the holder has everything for who adopts it. Instead of Close.
func (s *Supervisor) Leave() error {
	if !s.end() {
		return nil
	}
	return s.release()
}

// end ends the feeder; false when that was done before.
func (s *Supervisor) end() bool {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	s.closed = true
	_ = s.cmd.Process.Kill()
	s.mu.Unlock()
	<-s.done
	return true
}

func (s *Supervisor) release() error {
	var err error
	for _, p := range s.store {
		err = errors.Join(err, p.File.Close())
	}
	for _, f := range []*os.File{s.layout, s.conn, s.digests, s.lock, s.late, s.wanted, s.wants, s.former, s.guard} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	if s.listener != nil {
		_ = s.listener.Close() // accept may have done it
	}
	if s.control != nil {
		err = errors.Join(err, s.control.Close())
	}
	if s.arrivals != nil {
		err = errors.Join(err, s.arrivals.close())
		s.arrivals = nil
	}
	if s.journal != nil {
		err = errors.Join(err, s.journal.close(), s.journal.file.Close())
	}
	return err
}
