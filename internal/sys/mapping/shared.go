package mapping

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Shared maps a part of a file: whoever else has it mapped sees what is written to it at once, also after this process was
// killed. offset is a multiple of the page size, size is not 0. Reading behind the file's end is SIGBUS. The caller gives
// it back with Unmap.
func Shared(f *os.File, offset, size int64, writable bool) ([]byte, error) {
	protection := unix.PROT_READ
	if writable {
		protection |= unix.PROT_WRITE
	}
	b, err := unix.Mmap(int(f.Fd()), offset, int(size), protection, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", f.Name(), os.NewSyscallError("mmap", err))
	}
	return b, nil
}

// Unmap gives back what Shared returned.
func Unmap(b []byte) error { return os.NewSyscallError("munmap", unix.Munmap(b)) }

// Populate brings in a mapping's pages in one call (Linux 5.14; without it they come one by one). b begins on a page.
func Populate(b []byte) error {
	for {
		err := unix.Madvise(b, unix.MADV_POPULATE_READ)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		return os.NewSyscallError("madvise(MADV_POPULATE_READ)", err)
	}
}
