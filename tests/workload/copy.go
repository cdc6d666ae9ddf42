package main

import (
	"errors"
	"math"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memoryCopy is a forked child of memory: it sleeps on what it got from its parent, and sums it up when it is asked.
type memoryCopy struct {
	ask, answers [2]int // pipes
	first        *uint64
	words        int
	sum          uint64 // of the words at the fork
	buffer       [8]byte
}

// fork makes one. As with the children of kinds nothing may split the stack in it, and no signal may come.
func (m *memory) fork() (*memoryCopy, error) {
	c := &memoryCopy{first: (*uint64)(unsafe.Pointer(&m.pages[0])), words: len(m.pages) / 8}
	if err := errors.Join(unix.Pipe2(c.ask[:], unix.O_CLOEXEC), unix.Pipe2(c.answers[:], unix.O_CLOEXEC)); err != nil {
		return nil, err
	}
	c.sum = c.total()
	if _, errno := c.clone(); errno != 0 {
		return nil, errno
	}
	return c, errors.Join(unix.Close(c.ask[0]), unix.Close(c.answers[1]))
}

//go:nosplit
//go:norace
func (c *memoryCopy) clone() (pid int, errno syscall.Errno) {
	all, old := uint64(math.MaxUint64), uint64(0)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	child, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 && child == 0 {
		c.stay()
	}
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	return int(child), errno
}

// stay answers each byte with the sum of the memory, and ends with the parent.
//
//go:nosplit
//go:norace
func (c *memoryCopy) stay() {
	c.keep(c.ask[0], c.answers[1])
	for {
		n, _, _ := unix.RawSyscall(unix.SYS_READ, uintptr(c.ask[0]), uintptr(unsafe.Pointer(&c.buffer)), 1)
		if n != 1 {
			break
		}
		*(*uint64)(unsafe.Pointer(&c.buffer)) = c.total()
		unix.RawSyscall(unix.SYS_WRITE, uintptr(c.answers[1]), uintptr(unsafe.Pointer(&c.buffer)), 8)
	}
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// keep closes all descriptors but two and the standard ones: with those of its elder siblings, five hundred children would
// have a million.
//
//go:nosplit
//go:norace
func (c *memoryCopy) keep(one, other int) {
	low, high := min(one, other), max(one, other)
	unix.RawSyscall(unix.SYS_CLOSE_RANGE, 3, uintptr(low)-1, 0)
	unix.RawSyscall(unix.SYS_CLOSE_RANGE, uintptr(low)+1, uintptr(high)-1, 0)
	unix.RawSyscall(unix.SYS_CLOSE_RANGE, uintptr(high)+1, math.MaxUint32, 0)
}

// total depends on every word and on its place.
//
//go:nosplit
//go:norace
func (c *memoryCopy) total() uint64 {
	sum := uint64(1)
	for _, word := range unsafe.Slice(c.first, c.words) {
		sum = sum*31 + word
	}
	return sum
}

// check asks the child.
func (c *memoryCopy) check() error {
	const patience = time.Minute
	var answer [8]byte
	if _, err := unix.Write(c.ask[1], answer[:1]); err != nil {
		return err
	}
	// The child is as fast as its memory: one that is silent has lost it.
	answered := make(chan error, 1)
	go func() {
		_, err := unix.Read(c.answers[0], answer[:])
		answered <- err
	}()
	select {
	case err := <-answered:
		if err != nil {
			return err
		}
	case <-time.After(patience):
		return errors.New("it does not answer")
	}
	if *(*uint64)(unsafe.Pointer(&answer)) != c.sum {
		return errors.New("its memory is not what it was at the fork")
	}
	return nil
}
