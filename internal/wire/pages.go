package wire

import "fmt"

// MaxPages is the most bytes in one page frame: 1 MiB of memory, and where each page belongs.
const MaxPages = 1<<20 + 32<<10

// A page frame is a frame of an image lane as well: pages of the container's memory, in the memory engine's own coding,
// which has a digest of its own. To the handover it is opaque.
//
//	+--------+--------------------------+
//	| 'P'  1 | pages, 1..MaxPages bytes |
//	+--------+--------------------------+
const pagesTag = 'P'

// AppendPagesHeader appends the part of a page frame that precedes the pages.
func AppendPagesHeader(header []byte) []byte { return append(header, pagesTag) }

// IsPages tells a page frame from an image chunk.
func IsPages(frame []byte) bool { return len(frame) > 0 && frame[0] == pagesTag }

// DecodePages returns what a page frame holds. It aliases the frame.
func DecodePages(frame []byte) ([]byte, error) {
	if !IsPages(frame) {
		return nil, fmt.Errorf("%w: not a page frame", ErrMalformed)
	}
	pages := frame[1:]
	if len(pages) == 0 || len(pages) > MaxPages {
		return nil, fmt.Errorf("%w: a page frame of %d bytes", ErrMalformed, len(pages))
	}
	return pages, nil
}
