// Package initmem keeps small what a container's init holds while it waits, for as long as the container's owner likes,
// for its start.
package initmem

// #cgo CFLAGS: -Wall -Wextra -Wno-unused-parameter -std=gnu11
// #include <stddef.h>
// int release_program(size_t page);
import "C"

import (
	"os"
	"syscall"
)

// Release takes the program's code and constants out of the process's memory: ten megabytes that were of use while the
// container was made. What is needed again comes back from the page cache. It makes one system call a segment,
// madvise(2), which a filter may forbid: call it before that is loaded. After an error all works as before, and is larger.
func Release() error {
	// Of 4, 16 or 64 KiB: with a wrong one madvise(2) refuses every segment.
	if errno := C.release_program(C.size_t(os.Getpagesize())); errno != 0 {
		return os.NewSyscallError("madvise", syscall.Errno(errno))
	}
	return nil
}
