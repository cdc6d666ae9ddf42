package feed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// LockName is a file in a container's state directory that is locked as long as memory of the container is missing.
const LockName = "feeding.lock"

// ErrFeeding: the container runs already, and does not have all its memory yet. Nobody else can watch or save it meanwhile.
// Try again later.
var ErrFeeding = errors.New("the container is still being given its memory")

// Lock makes the lock, for Options.Lock. The caller closes it once the feeder has it.
func Lock(stateDir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(stateDir, LockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock memory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrFeeding, err), f.Close())
	}
	return f, nil
}

// fedLimit is how long Await waits: at a disk's speed that is several gigabytes.
const fedLimit = 30 * time.Second

// Await returns when the container has all its memory. ErrFeeding after half a minute.
func Await(ctx context.Context, stateDir string) error {
	f, err := os.Open(filepath.Join(stateDir, LockName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("wait for memory: %w", err)
	}
	defer f.Close()
	for end := time.Now().Add(fedLimit); ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		if err == nil || !errors.Is(err, syscall.EWOULDBLOCK) {
			return os.NewSyscallError("flock", err)
		}
		if time.Now().After(end) {
			return ErrFeeding
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
