// Package mapping makes memory that Go's collector does not see.
package mapping

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Table is an array in anonymous memory of its own, all zero at first. Memory is taken when a row is written first, and
// the array never moves, so that a big table costs what is used of it: a slice of Go's that grows is there twice while
// it is copied, and counts twice again in the collector's aim.
type Table[T any] struct {
	Rows []T // no use after Close
	raw  []byte
}

// NewTable makes a table of n rows. T holds no pointers: the collector does not follow them here. The caller closes it.
func NewTable[T any](n int) (*Table[T], error) {
	var row T
	raw, err := unix.Mmap(-1, 0, max(n, 1)*int(unsafe.Sizeof(row)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map table of %d rows: %w", n, err)
	}
	return &Table[T]{Rows: unsafe.Slice((*T)(unsafe.Pointer(&raw[0])), n), raw: raw}, nil
}

// Close gives the memory back. A second Close does nothing.
func (t *Table[T]) Close() error {
	if t.raw == nil {
		return nil
	}
	raw := t.raw
	t.raw, t.Rows = nil, nil
	if err := unix.Munmap(raw); err != nil {
		return fmt.Errorf("unmap table: %w", err)
	}
	return nil
}
