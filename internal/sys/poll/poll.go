// Package poll waits for many descriptors of which only the numbers are known: those that Go's own poller has no files for.
package poll

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Set is the descriptors waited for. Add and Remove may be called while another goroutine waits.
type Set struct {
	fd     int
	events [64]unix.EpollEvent
}

// New makes an empty set. The caller closes it.
func New() (*Set, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make poll set: %w", os.NewSyscallError("epoll_create1", err))
	}
	return &Set{fd: fd}, nil
}

// Add has Wait return id whenever fd can be read, or its other end is gone.
func (s *Set) Add(fd, id int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(id)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(s.fd, unix.EPOLL_CTL_ADD, fd, &event))
}

// Remove forgets fd, which is still open.
func (s *Set) Remove(fd int) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(s.fd, unix.EPOLL_CTL_DEL, fd, nil))
}

// Wait appends the ids of what is ready to ids, which is empty after the patience. One goroutine at a time.
func (s *Set) Wait(ids []int, patience time.Duration) ([]int, error) {
	n, err := unix.EpollWait(s.fd, s.events[:], int(patience.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return ids, os.NewSyscallError("epoll_wait", err)
	}
	for i := range max(n, 0) {
		ids = append(ids, int(s.events[i].Fd))
	}
	return ids, nil
}

// Close ends the set; the descriptors stay open.
func (s *Set) Close() error { return os.NewSyscallError("close", unix.Close(s.fd)) }
