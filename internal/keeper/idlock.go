package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/wire"
)

// idLock holds a container's id for the length of a move, so that two moves of one container can't meet.
type idLock struct {
	file *os.File
	slot *slot // among the moves to this host; nil at the source, and where there is no limit
}

// lock takes an id. wire.ErrBusy when another move has it.
func (p Places) lock(id string) (*idLock, error) {
	if err := p.make(); err != nil {
		return nil, err
	}
	path := p.lockPath(id)
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock container id: %w", err)
		}
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %s", wire.ErrBusy, id), file.Close())
		}
		if isFileAt(file, path) {
			return &idLock{file: file}, nil
		}
		_ = file.Close() // its last owner removed it between our open and our lock
	}
}

// What is in the file of an id whose move waits for its source, and when another move would have it.
const (
	away   = "away"
	wanted = "wanted"
)

// claimLimit is how long a move that waits may take to clear up for another one.
const claimLimit = 5 * time.Second

// claim is lock, that a move which waits for its source makes room for.
func (p Places) claim(ctx context.Context, id string) (*idLock, error) {
	ctx, cancel := context.WithTimeout(ctx, claimLimit)
	defer cancel()
	for asked := false; ; {
		l, err := p.lock(id)
		if !errors.Is(err, wire.ErrBusy) {
			return l, err
		}
		if text, _ := os.ReadFile(p.lockPath(id)); string(text) == away {
			asked = true
			_ = rewrite(p.lockPath(id), wanted) // gone: it is ours next
		}
		if !asked {
			return nil, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// yield waits until another move claims the id, or ctx ends: false.
func (l *idLock) yield(ctx context.Context) bool {
	defer func() { _ = l.file.Truncate(0) }()
	_ = l.file.Truncate(0)                 // a claim may have come too late for the time before
	_, _ = l.file.WriteAt([]byte(away), 0) // nobody can claim it without
	text := make([]byte, len(wanted))
	for {
		if n, _ := l.file.ReadAt(text, 0); string(text[:n]) == wanted {
			return true
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
}

func rewrite(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

// busy tells whether a move has the id.
func (p Places) busy(id string) bool {
	if _, err := os.Stat(p.lockPath(id)); err != nil {
		return false
	}
	l, err := p.lock(id)
	if err == nil {
		_ = l.Close()
	}
	return errors.Is(err, wire.ErrBusy)
}

func (p Places) lockPath(id string) string { return filepath.Join(p.run(), id+".lock") }

// arriveLimit is how long a move waits for the end of the one that brought the container here. At memory speed that is tens
// of gigabytes.
const arriveLimit = 30 * time.Second

// awaitArrival waits until a container that runs here already has all its memory, and its move no use for it any more: its
// userfaultfds let no other watch the memory, and CRIU would wait for every page.
func (p Places) awaitArrival(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, arriveLimit)
	defer cancel()
	for {
		l, err := p.lock(id)
		if err == nil {
			return l.Close()
		}
		if !errors.Is(err, wire.ErrBusy) {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the move that brought the container here has not ended, try again later: %w", err)
		}
	}
}

func isFileAt(file *os.File, path string) bool {
	ours, err := file.Stat()
	if err != nil {
		return false
	}
	theirs, err := os.Stat(path)
	return err == nil && os.SameFile(ours, theirs)
}

// Close gives the id up and removes the file, while it is still ours.
func (l *idLock) Close() error {
	return errors.Join(os.Remove(l.file.Name()), l.file.Close(), l.slot.Close())
}
