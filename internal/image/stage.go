package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A set that takes the place of an older one is written beside it, and the older one stays what it is until then:
//
//	OpenStage   DIR/.checkpoint-new is made; nobody else may write a set into DIR meanwhile
//	            the set is written there
//	Write       its manifest
//	Publish     all of it is safe on disk; .checkpoint-new becomes .checkpoint-ready. From here the new set is the one
//	            promote: its files go into DIR, over those of the old one, inventory.img and the manifest last
//
// DIR itself is never another directory: callers hold it open, or have mounted it. promote can be done again: whoever opens a set
// that was cut off there ends it first. CRIU's link "parent" has one step more in the stage.
const (
	stageName = ".checkpoint-new"
	readyName = ".checkpoint-ready"
	stageStep = "../" // from the stage to DIR
)

// ErrBusy: another checkpoint is being written into the directory. Wait for it, or use another directory.
var ErrBusy = errors.New("another checkpoint is being written there")

// Stage is where a set is written before it is one. It must be closed.
type Stage struct {
	Dir    string   // for the files
	Target string   // where it is going to be
	made   bool     // the target, by us
	lock   *os.File // of the target
}

// OpenStage makes the target, if need be, closed to everybody else, and the stage. What a checkpoint that was killed has left
// in the target is ended or removed before.
func OpenStage(target string) (_ *Stage, err error) {
	s := &Stage{Dir: filepath.Join(target, stageName), Target: target}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make image directory: %w", err), s.Close())
		}
	}()
	if _, err := os.Stat(target); errors.Is(err, os.ErrNotExist) {
		s.made = true
	}
	if err := os.MkdirAll(target, 0o700); err != nil {
		return nil, err
	}
	if s.lock, err = lockSet(target, syscall.LOCK_NB); err != nil {
		return nil, err
	}
	if err := promote(target); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(s.Dir); err != nil {
		return nil, err
	}
	return s, os.Mkdir(s.Dir, 0o700)
}

// Parent is a path relative to the target, as it is seen from the stage.
func (s *Stage) Parent(path string) string { return stageStep + path }

// Write is Write for the set in the stage, which gets the link that is right in the target.
func (s *Stage) Write(ctx context.Context, origin Origin) error {
	m := origin.manifest()
	err := m.describe(ctx, s.Dir, origin.Compress)
	if err == nil && m.Parent != "" {
		m.Parent, err = s.relink(m.Parent)
	}
	if err == nil {
		err = m.save(s.Dir)
	}
	if err != nil {
		return fmt.Errorf("write manifest of %q: %w", s.Target, err)
	}
	return nil
}

func (s *Stage) relink(link string) (string, error) {
	right, ok := strings.CutPrefix(link, stageStep)
	if !ok {
		return "", damaged(parentName, "leads to %q", link)
	}
	path := filepath.Join(s.Dir, parentName)
	return right, errors.Join(os.Remove(path), os.Symlink(right, path))
}

// Publish makes the set that of the target, in the place of an older one. It has a manifest. When it returns nil, a power cut
// loses nothing of it. When it fails, either the older set is there as it was, or whoever opens the target next finds the new one.
func (s *Stage) Publish() error {
	if err := closeFiles(s.Dir); err != nil {
		return fmt.Errorf("publish images: %w", err)
	}
	if err := Sync(s.Dir); err != nil {
		return err
	}
	err := os.Rename(s.Dir, filepath.Join(s.Target, readyName))
	if err == nil {
		err = syncFile(s.Target)
	}
	if err == nil {
		err = promote(s.Target)
	}
	if err != nil {
		return fmt.Errorf("publish images: %w", err)
	}
	return nil
}

// closeFiles closes them to others: their directory may be open.
func closeFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		if err := os.Chmod(filepath.Join(dir, entry.Name()), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Close removes what was not published, and the target if it was made for it and is empty.
func (s *Stage) Close() error {
	if s.lock == nil {
		return nil // somebody else's
	}
	err := os.RemoveAll(s.Dir)
	if s.made {
		_ = os.Remove(s.Target) // it has the set in it, or CRIU's log
	}
	if err = errors.Join(err, s.lock.Close()); err != nil {
		return fmt.Errorf("remove unfinished images: %w", err)
	}
	return nil
}

// lockSet keeps others from changing the set in dir until the file is closed; how may be LOCK_NB: ErrBusy then. File systems
// that have no such locks are used without.
func lockSet(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|how)
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrBusy, dir), f.Close())
	}
	return f, nil
}
