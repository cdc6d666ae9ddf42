// Package fanotify wraps the kernel's log of what changes on a filesystem, in its form that names the directory and the
// entry instead of handing out descriptors: FAN_REPORT_DFID_NAME_TARGET, Linux 5.17. Watching a whole filesystem needs
// CAP_SYS_ADMIN in the first user namespace.
//
// What it cannot see: writes through a mapping (mmap). The last close of such a file is seen, as a Closed event.
package fanotify

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Kinds of change, to be or-ed.
const (
	Modified  = unix.FAN_MODIFY      // content or size
	Attrib    = unix.FAN_ATTRIB      // mode, owner, times, xattrs, number of links
	Closed    = unix.FAN_CLOSE_WRITE // the last close of a file that was open for writing
	Created   = unix.FAN_CREATE
	Deleted   = unix.FAN_DELETE
	MovedFrom = unix.FAN_MOVED_FROM
	MovedTo   = unix.FAN_MOVED_TO
	Renamed   = unix.FAN_RENAME // comes beside MovedFrom and MovedTo, names both places
	OnDir     = unix.FAN_ONDIR  // the object is a directory
	Overflow  = unix.FAN_Q_OVERFLOW

	all = Modified | Attrib | Closed | Created | Deleted | MovedFrom | MovedTo | Renamed | OnDir
)

// ErrUnavailable says that this kernel, filesystem or user cannot have such a watch.
var ErrUnavailable = errors.New("fanotify is not available")

// Group is one watch. The caller closes it. Read and Drain exclude each other by the caller's lock.
type Group struct {
	file *os.File
	buf  []byte
}

// WatchFilesystem starts a watch on the whole filesystem that path lies on, through whichever path or mount it is changed.
// Events queue without a limit from now on, so they must be read. ErrUnavailable where it cannot be had.
func WatchFilesystem(path string) (*Group, error) {
	const flags = unix.FAN_CLASS_NOTIF | unix.FAN_CLOEXEC | unix.FAN_NONBLOCK |
		unix.FAN_REPORT_DFID_NAME_TARGET | unix.FAN_UNLIMITED_QUEUE
	fd, err := unix.FanotifyInit(flags, unix.O_RDONLY|unix.O_LARGEFILE)
	if err != nil {
		return nil, fmt.Errorf("start watch: %w: %w", ErrUnavailable, err)
	}
	err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, all, unix.AT_FDCWD, path)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch filesystem of %s: %w: %w", path, ErrUnavailable, err)
	}
	return &Group{file: os.NewFile(uintptr(fd), "fanotify"), buf: make([]byte, 64<<10)}, nil
}

// Wait blocks until there is something to read, or the group is closed (os.ErrClosed).
func (g *Group) Wait() error {
	raw, err := g.file.SyscallConn()
	if err != nil {
		return err
	}
	ready := false
	return raw.Read(func(fd uintptr) bool {
		if ready {
			return true
		}
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		ready = n > 0 || err != nil && !errors.Is(err, unix.EINTR)
		return ready
	})
}

// Drain reads every event that is queued, in order, and returns once the queue is empty. What a process did before Drain
// was called is in it. The event and what it refers to are only valid during the call of f.
func (g *Group) Drain(f func(*Event)) error {
	raw, err := g.file.SyscallConn()
	if err != nil {
		return err
	}
	var fail error
	err = raw.Control(func(fd uintptr) { fail = g.drain(int(fd), f) })
	return errors.Join(err, fail)
}

func (g *Group) drain(fd int, f func(*Event)) error {
	for {
		n, err := unix.Read(fd, g.buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN), err == nil && n == 0:
			return nil
		case err != nil:
			return fmt.Errorf("read watch: %w", err)
		}
		if err := Parse(g.buf[:n], f); err != nil {
			return err
		}
	}
}

// Close ends the watch and wakes Wait.
func (g *Group) Close() error {
	_ = g.file.SetReadDeadline(time.Now())
	return g.file.Close()
}
