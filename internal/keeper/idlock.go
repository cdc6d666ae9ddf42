package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/livemigrate/migrate/internal/wire"
)

// idLock holds a container's id for the length of a move, so that two moves of one container can't meet.
type idLock struct {
	file *os.File
}

// lock takes an id. wire.ErrBusy when another move has it.
func (h *host) lock(id string) (*idLock, error) {
	if err := h.order.make(); err != nil {
		return nil, err
	}
	path := filepath.Join(h.order.run(), id+".lock")
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock container id: %w", err)
		}
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %s", wire.ErrBusy, id), file.Close())
		}
		if isFileAt(file, path) {
			return &idLock{file}, nil
		}
		_ = file.Close() // its last owner removed it between our open and our lock
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
	return errors.Join(os.Remove(l.file.Name()), l.file.Close())
}
