package feed

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// AwaitTasks returns when CRIU has handed over the memory of every task: from then on they may run, whatever becomes of the
// restore. Without that one would run on zeros where its memory is missing.
func (s *Supervisor) AwaitTasks(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !s.Progress().Complete {
		select {
		case <-tick.C:
		case <-s.done:
			return s.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Finish waits until everything is fed, and closes. When that can't be, kill has to end every process first, which would stand
// still for ever; if it fails nothing is closed, since whoever lives would read zeros then. id is the container's, for the log.
func (s *Supervisor) Finish(id string, kill func() error) error {
	<-s.done
	p := s.Progress()
	if s.err == nil {
		s.log.Info("the container has its memory", "container", id, "bytes", p.Fed, "faults", p.Faults, "restarts", p.Restarts)
		return s.Close()
	}
	s.log.Error("the container cannot get its memory, and is killed", "container", id, "progress", p, "error", s.err)
	if err := kill(); err != nil {
		return errors.Join(s.err, err)
	}
	return errors.Join(s.err, s.Close())
}

// Feeds tells whether the container of that state directory is the one, and not another that has taken its name.
func (s *Supervisor) Feeds(stateDir string) (bool, error) {
	theirs, err := os.Stat(filepath.Join(stateDir, lockName))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil || s.lock == nil {
		return false, err
	}
	ours, err := s.lock.Stat()
	return err == nil && os.SameFile(ours, theirs), err
}
