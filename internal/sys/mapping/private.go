package mapping

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Private is anonymous memory, which is taken page by page as it is written. The caller gives it back with Unmap.
func Private(size int64) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, os.NewSyscallError("mmap", err))
	}
	return b, nil
}

// Drop frees whole pages of what Private returned: they are zeros from then on.
func Drop(b []byte) error {
	return os.NewSyscallError("madvise(MADV_DONTNEED)", unix.Madvise(b, unix.MADV_DONTNEED))
}
