// Package futex waits for a word in memory that processes share, and wakes whoever waits.
package futex

import (
	"errors"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Operations of linux/futex.h, without FUTEX_PRIVATE_FLAG.
const (
	opWait = 0
	opWake = 1
)

// Wait returns when the word is not value any more, after a Wake, after the patience, or for no reason: look again. It takes
// a thread of its own.
func Wait(word *uint32, value uint32, patience time.Duration) error {
	timeout := unix.NsecToTimespec(int64(patience))
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), opWait, uintptr(value),
		uintptr(unsafe.Pointer(&timeout)), 0, 0)
	if errno == 0 || errors.Is(errno, unix.EAGAIN) || errors.Is(errno, unix.EINTR) || errors.Is(errno, unix.ETIMEDOUT) {
		return nil
	}
	return os.NewSyscallError("futex", errno)
}

// Wake wakes all that wait for the word.
func Wake(word *uint32) error {
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), opWake, 1<<31-1, 0, 0, 0)
	if errno == 0 {
		return nil
	}
	return os.NewSyscallError("futex", errno)
}
