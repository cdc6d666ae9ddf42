// Package memory is what the parts of the memory engine have in common: how a piece of an address space is named.
package memory

// PageSize is the unit of everything here, in bytes: that of x86-64, and what CRIU's page maps count in.
const PageSize = 4096

// Range is a run of pages of one address space.
type Range struct {
	Start uint64 // the address of the first byte, a multiple of PageSize
	Pages uint64
}

// End is the address of the first byte behind the range.
func (r Range) End() uint64 { return r.Start + r.Pages*PageSize }

// Bytes is the length in bytes.
func (r Range) Bytes() uint64 { return r.Pages * PageSize }
