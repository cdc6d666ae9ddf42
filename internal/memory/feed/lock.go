package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Files in a container's state directory.
const (
	lockName  = "feeding.lock"  // locked (flock) by whoever has it open, feeders and holders, as long as memory is missing
	guardName = "feeding.guard" // locked (F_OFD_SETLK, fcntl(2)) by the supervisor alone, as long as it lives
)

var (
	// ErrFeeding: the container runs already, and does not have all its memory yet. Nobody else can watch or save it meanwhile.
	// Try again later.
	ErrFeeding = errors.New("the container is still being given its memory")
	// ErrUnattended: the container lacks memory, and the processes that were giving it are gone. What it lacks is held still: see
	// Adopt. Until then it stands still at the first page that is not there.
	ErrUnattended = errors.New("it lacks memory, and the processes that were giving it are gone: \"migrate resolve\" goes on with that")
)

func takeLock(stateDir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(stateDir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock memory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrFeeding, err), f.Close())
	}
	if err := f.Truncate(0); err != nil { // the mark of a feeding before
		return nil, errors.Join(fmt.Errorf("lock memory: %w", err), f.Close())
	}
	return f, nil
}

// Commands of fcntl(2): locks of an open file, which it can be asked for without taking them.
const (
	getLock = 36 // F_OFD_GETLK
	setLock = 37 // F_OFD_SETLK
)

func takeGuard(stateDir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(stateDir, guardName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("guard memory: %w", err)
	}
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	if err := syscall.FcntlFlock(f.Fd(), setLock, &lock); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrFeeding, err), f.Close())
	}
	return f, nil
}

// isMissing tells whether memory of the container is missing. The file is the lock, open for reading.
func isMissing(lock *os.File) (bool, error) {
	err := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_UN)
	}
	return false, os.NewSyscallError("flock", err)
}

// fedMark is what is in the lock when no process lacks memory any more. A feeder writes it before it ends its holder: a lock that
// merely ended may be one that everybody was killed for who held it, and what lacked memory then has zeros.
const fedMark = "fed\n"

// wholeMark is there instead when every page had come that was owed. Processes that were killed lack no memory any more, and may
// have lacked some.
const wholeMark = "fed, all of it\n"

// mark is what is written into the lock of a feeding that has ended.
func mark(whole bool) []byte {
	if whole {
		return []byte(wholeMark)
	}
	return []byte(fedMark)
}

// Whole tells whether a feeding has ended, and everything had come that its processes could have needed: what became of them later
// is not for want of memory.
func Whole(stateDir string) (bool, error) {
	lock, err := os.Open(filepath.Join(stateDir, lockName))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for missing memory: %w", err)
	}
	defer lock.Close()
	if missing, err := isMissing(lock); missing || err != nil {
		return false, err
	}
	content, err := io.ReadAll(io.LimitReader(lock, int64(len(wholeMark))))
	return string(content) == wholeMark, err
}

// checkMark returns ErrLost when the mark is not there. It is asked when the lock has ended, or nobody is found who could hold it.
func checkMark(lock *os.File) error {
	info, err := lock.Stat()
	if err == nil && info.Size() == 0 {
		err = fmt.Errorf("%w: whoever held the container's memory was killed, and what was missing is zeros now; delete it", ErrLost)
	}
	return err
}

func isGuarded(stateDir string) (bool, error) {
	f, err := os.Open(filepath.Join(stateDir, guardName))
	if err != nil {
		return false, err
	}
	defer f.Close()
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	err = syscall.FcntlFlock(f.Fd(), getLock, &lock)
	return lock.Type != syscall.F_UNLCK, os.NewSyscallError("fcntl", err)
}

// Check tells of a container that lacks memory and is not being given it: ErrUnattended, or ErrLost when nobody could any more.
// It does not wait.
func Check(stateDir string) error {
	lock, err := os.Open(filepath.Join(stateDir, lockName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for missing memory: %w", err)
	}
	defer lock.Close()
	missing, err := isMissing(lock)
	if err != nil {
		return err
	}
	if !missing {
		return checkMark(lock)
	}
	unattended, err := isUnattended(stateDir, lock)
	switch {
	case errors.Is(err, ErrFed): // it was told that it is missing a moment too early
		return nil
	case err == nil && unattended:
		return ErrUnattended
	}
	return err
}

// isUnattended is asked while memory is missing.
func isUnattended(stateDir string, lock *os.File) (bool, error) {
	guarded, err := isGuarded(stateDir)
	if err != nil || guarded {
		return false, err
	}
	o, err := findOrphan(lock)
	if err != nil {
		return false, err
	}
	defer o.close()
	if len(o.feeders) == 0 {
		return checkMark(lock) != nil, nil // a feeder may just have come to its end
	}
	return o.waits() // with all pages there a feeder goes on by itself
}

// fedLimit is how long Await waits: at a disk's speed that is several gigabytes.
const fedLimit = 30 * time.Second

// Await returns when the container has all its memory. ErrUnattended when that will not be by itself, ErrLost when it can't be
// any more; ErrFeeding after half a minute.
func Await(ctx context.Context, stateDir string) error {
	lock, err := os.Open(filepath.Join(stateDir, lockName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("wait for memory: %w", err)
	}
	defer lock.Close()
	for end := time.Now().Add(fedLimit); ; {
		missing, err := isMissing(lock)
		if err != nil {
			return err
		}
		if !missing {
			return checkMark(lock)
		}
		if unattended, err := isUnattended(stateDir, lock); err == nil && unattended {
			return ErrUnattended
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
