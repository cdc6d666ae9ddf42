package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/livemigrate/migrate/internal/sys/pidfd"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// FifoName is the exec fifo's name in the state directory. While it is there the container is created, not started.
const FifoName = "exec.fifo"

// pollStep is how often a wait looks up, in milliseconds.
const pollStep = 100

var (
	// ErrStarted: the container was started before. Nothing was done.
	ErrStarted = errors.New("cannot start an already running container")
	// ErrInitGone: the container's init ended before it executed its program. Delete the container.
	ErrInitGone = errors.New("container process is already dead")
)

// makeFifo makes the exec fifo for the container's root and opens it so that it can be passed on, but neither read nor
// written.
func makeFifo(dir string, spec *specs.Spec) (*os.File, error) {
	path := filepath.Join(dir, FifoName)
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("exec fifo %s already exists", path)
	}
	if err := unix.Mkfifo(path, 0o622); err != nil {
		return nil, &os.PathError{Op: "make fifo", Path: path, Err: err}
	}
	undo := func(err error) error { return errors.Join(err, os.Remove(path)) }
	if err := os.Chmod(path, 0o622); err != nil { // the umask may have cut it
		return nil, undo(err)
	}
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = hostID(spec.Linux.UIDMappings), hostID(spec.Linux.GIDMappings)
	}
	if err := os.Chown(path, uid, gid); err != nil {
		return nil, undo(err)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, undo(&os.PathError{Op: "open", Path: path, Err: err})
	}
	return os.NewFile(uintptr(fd), path), nil
}

// OpenFifo lets the init that waits on the exec fifo of stateDir go on, removes the fifo, and returns when the program is
// about to run. pid and start time say
// which process that is; its death is noticed at once (pidfd_open, Linux 5.3). ErrStarted, ErrInitGone.
func OpenFifo(ctx context.Context, stateDir string, pid int, start uint64) error {
	path := filepath.Join(stateDir, FifoName)
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return ErrStarted
	}
	// Before the fifo: as soon as that is open, init may run, end and be reaped, and its pid name nobody.
	init, err := pidfd.Open(pid)
	if errors.Is(err, os.ErrProcessDone) {
		return ErrInitGone
	}
	if err != nil {
		return fmt.Errorf("open init: %w", err)
	}
	defer init.Close()
	// After the pidfd: it may be of another process that got the number.
	if now, err := process.StartTime(pid); err != nil || now != start {
		return ErrInitGone
	}
	// Opening for reading is what unblocks init's open for writing. It does not block us with O_NONBLOCK.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) { // another start, running at the same time, was first
		return ErrStarted
	}
	if err != nil {
		return &os.PathError{Op: "open exec fifo", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return awaitByte(ctx, fd, int(init.Fd()), func() error {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove exec fifo: %w", err)
		}
		return nil
	})
}

// awaitByte waits for what init writes. It may have written and ended already, so its byte is looked for before its
// death. A cancelled context is noticed within pollStep. gone is called as soon as init has the fifo open: it goes on from
// there, whatever becomes of us, and must not look as if it still waited.
func awaitByte(ctx context.Context, fifo, pidfd int, gone func() error) error {
	buf := make([]byte, 1)
	opened := false
	for {
		n, err := unix.Read(fifo, buf)
		switch {
		case n == 1:
			return gone()
		case err == unix.EAGAIN: // init has it open and has not written
			opened = true
			if err := gone(); err != nil {
				return err
			}
		case err == nil && opened:
			return lostByte(pidfd)
		case err != nil && err != unix.EINTR:
			return fmt.Errorf("read exec fifo: %w", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		fds := []unix.PollFd{{Fd: int32(fifo), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, pollStep); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for init: %w", err)
		}
		if fds[1].Revents != 0 {
			if n, _ := unix.Read(fifo, buf); n == 1 {
				return gone()
			}
			return ErrInitGone
		}
		if fds[0].Revents&unix.POLLHUP != 0 && fds[0].Revents&unix.POLLIN == 0 {
			return lostByte(pidfd)
		}
	}
}

// lostByte says what a fifo means that init had open and that brought nothing: init died before it wrote, or another
// start, running at the same time, took the byte.
func lostByte(pidfd int) error {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	if n, _ := unix.Poll(fds, pollStep); n == 1 {
		return ErrInitGone
	}
	return ErrStarted
}
