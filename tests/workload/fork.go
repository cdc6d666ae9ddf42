package main

import (
	"math"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// job is what a forked child does with its copy of the areas. It has no exec: what it has is the parent's memory, copied
// on write, at the moment of the fork.
type job struct {
	areas  []*area
	who    int
	report *fault // shared with the parent
	random uint64
	naps   int   // of a passing child
	nap    int64 // ns
	in     int   // of the mate: a pipe of questions,
	out    int   // one of answers,
	theirs [2]int
	poll   unix.PollFd
	time   unix.Timespec
	buffer [1]byte
}

// Questions and answers of the mate.
const (
	hold  = 'h' // stop writing and verify everything
	goOn  = 'g'
	right = 'r'
	bad   = 'b'
)

// passing is who a child that passes is.
const passing = 2

// fork returns in the parent only. In between nothing may split the stack, and no signal may come: the child would enter
// the scheduler.
//
//go:nosplit
//go:norace
func (j *job) fork() (pid int, errno syscall.Errno) {
	all, old := uint64(math.MaxUint64), uint64(0)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	child, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 && child == 0 {
		j.run()
	}
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	return int(child), errno
}

//go:nosplit
//go:norace
func (j *job) run() {
	status := uintptr(0)
	for _, a := range j.areas {
		for i := range a.versions {
			if a.wiped {
				a.versions[i] |= zeros
			}
		}
	}
	if j.who == mate {
		j.stay()
	} else if !j.pass() {
		status = 1
	}
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, status, 0, 0)
	}
}

// pass verifies, writes and sleeps in turn.
//
//go:nosplit
//go:norace
func (j *job) pass() bool {
	for range j.naps {
		if !j.verify() {
			return false
		}
		j.write(64)
		j.time = unix.Timespec{Sec: j.nap / 1e9, Nsec: j.nap % 1e9}
		unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&j.time)), uintptr(unsafe.Pointer(&j.time)), 0)
	}
	return j.verify()
}

// stay writes until it is asked, and ends with the parent.
//
//go:nosplit
//go:norace
func (j *job) stay() {
	for _, fd := range j.theirs {
		unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	}
	for _, a := range j.areas {
		a.account(mate)
	}
	for {
		j.poll.Fd, j.poll.Events, j.poll.Revents = int32(j.in), unix.POLLIN, 0
		j.time = unix.Timespec{Nsec: 1e6}
		n, _, _ := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&j.poll)), 1, uintptr(unsafe.Pointer(&j.time)), 0, 8, 0)
		if n != 1 {
			j.write(2)
			continue
		}
		if !j.hears(hold) {
			return
		}
		answer := byte(right)
		if !j.verify() {
			answer = bad
		}
		j.buffer[0] = answer
		unix.RawSyscall(unix.SYS_WRITE, uintptr(j.out), uintptr(unsafe.Pointer(&j.buffer)), 1)
		if !j.hears(goOn) {
			return
		}
	}
}

//go:nosplit
//go:norace
func (j *job) hears(word byte) bool {
	n, _, _ := unix.RawSyscall(unix.SYS_READ, uintptr(j.in), uintptr(unsafe.Pointer(&j.buffer)), 1)
	return n == 1 && j.buffer[0] == word
}

// verify looks at everything that the child has. What the others share with it changes meanwhile, unless it is the mate,
// whom the parent waits for.
//
//go:nosplit
//go:norace
func (j *job) verify() bool {
	for _, a := range j.areas {
		if a.unforked || a.shared && j.who != mate {
			continue
		}
		if !a.right(j.who, j.report) {
			return false
		}
	}
	return true
}

// write rewrites pages of its own, and punches a hole now and then.
//
//go:nosplit
//go:norace
func (j *job) write(n int) {
	for range n {
		j.random = next(j.random)
		a := j.areas[j.random%uint64(len(j.areas))]
		i := int(j.random >> 32 % uint64(len(a.versions)))
		switch {
		case a.constant || a.unforked || !a.owns(i, j.who):
		case a.holes && j.random>>24%16 == 0:
			a.drop(i, i+1, unix.MADV_DONTNEED)
		case a.open():
			a.write(i)
			a.shut()
		}
	}
}
