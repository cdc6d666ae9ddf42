package uffd

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// MessageSize is the length of one message, struct uffd_msg, in bytes.
const MessageSize = 32

// Kind is what a message tells.
type Kind uint8

// Kinds of events. Remap, Remove, Unmap and Fork come when API asked for them; the process waits in its system call until
// they are read.
const (
	Pagefault Kind = 0x12 // a thread waits at Address
	Fork      Kind = 0x13 // a child has a copy of the areas, watched by Child
	Remap     Kind = 0x14 // mremap moved Length bytes from From to To
	Remove    Kind = 0x15 // madvise dropped the pages from Start until End
	Unmap     Kind = 0x16 // the mapping from Start until End is gone
)

// Flags of a Pagefault.
const (
	FaultWrite = 1 << 0
	FaultWP    = 1 << 1
)

// Event is a message, understood.
type Event struct {
	Kind Kind

	Flags, Address uint64 // Pagefault
	Thread         uint32 // Pagefault, with FeatureThreadID: the thread, as its own pid namespace calls it
	Child          FD     // Fork: a new descriptor in the table of the process that read the message
	From, To       uint64 // Remap
	Length         uint64 // Remap, in bytes
	Start, End     uint64 // Remove, Unmap
}

// ErrMalformed: the bytes are no message that this package knows.
var ErrMalformed = errors.New("malformed userfaultfd message")

// Read puts messages straight into buf, without a copy of them anywhere else, and returns how many bytes came: a multiple
// of MessageSize. A plain unix.Errno: EAGAIN when there is none and the descriptor does not block. A message that was read
// never comes again.
func (fd FD) Read(buf []byte) (n int, err error) {
	for {
		n, err = unix.Read(int(fd), buf)
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

// Parse understands the first message of buf. The layout, in the order of the machine's bytes:
//
//	event u8 | reserved u8 u16 u32 | pagefault: flags u64 | address u64 | thread u32
//	                               | fork:      fd u32
//	                               | remap:     from u64 | to u64 | length u64
//	                               | remove, unmap: start u64 | end u64
func Parse(buf []byte) (Event, error) {
	if len(buf) < MessageSize {
		return Event{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(buf))
	}
	a := binary.NativeEndian.Uint64(buf[8:])
	b := binary.NativeEndian.Uint64(buf[16:])
	c := binary.NativeEndian.Uint64(buf[24:])
	switch kind := Kind(buf[0]); kind {
	case Pagefault:
		return Event{Kind: kind, Flags: a, Address: b, Thread: uint32(c)}, nil
	case Fork:
		return Event{Kind: kind, Child: FD(uint32(a))}, nil
	case Remap:
		return Event{Kind: kind, From: a, To: b, Length: c}, nil
	case Remove, Unmap:
		return Event{Kind: kind, Start: a, End: b}, nil
	default:
		return Event{}, fmt.Errorf("%w: event %#x", ErrMalformed, buf[0])
	}
}
