package unlinked

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// Channel is an ordered stream of frames to the other side; a transport.Lane is one.
type Channel interface {
	Send(ctx context.Context, parts ...[]byte) error
	Recv(ctx context.Context, buf []byte) ([]byte, error)
}

// ErrMalformed: the other side sent what is no frame of a pass, or not at that moment.
var ErrMalformed = errors.New("malformed")

type frameKind byte

const (
	frameFile frameKind = iota + 1
	frameListed
	frameTaken
	frameData
	frameHole
	frameAttr
	frameDrop
	frameStill
	frameEnd
)

const (
	// blockSize is what is compared and sent at once: small enough that scattered writes cost little, large enough that a digest
	// of 16 bytes for each costs nothing.
	blockSize = 128 << 10

	// MostFiles is how many are carried; of more, the largest. CRIU has the rest.
	MostFiles = 1024

	mostPlaces = 64
	mostOpens  = 1 << 15 // of one file: each takes a link of it for a moment, and filesystems have a limit (ext4: 65000)
	mostPath   = 4096
	mostSize   = 16 << 40 // of one file, in bytes, holes counted
)

// Place is where a file was seen.
type Place struct {
	Mount  int    // id of the mount in the container's namespace, at the source
	Device uint64 // there, as the kernel counts it
	Inode  uint64
	Root   int    // which of the directories that travel is the mount's root
	Point  string // where the container has that
	Path   string // what the file was called in the container
}

// attributes are what a file has beside its content.
type attributes struct {
	size           int64
	mode, uid, gid uint32
	mtime          fs.Time
}

func encodeFile(index int, size int64, places []Place) []byte {
	b := numbers(frameFile, uint64(index), uint64(size), uint64(len(places)))
	for _, p := range places {
		for _, n := range []uint64{uint64(p.Mount), p.Device, p.Inode, uint64(p.Root)} {
			b = binary.AppendUvarint(b, n)
		}
		for _, s := range []string{p.Point, p.Path} {
			b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
		}
	}
	return b
}

func (a *attributes) encode(index int) []byte {
	b := numbers(frameAttr, uint64(index), uint64(a.size), uint64(a.mode), uint64(a.uid), uint64(a.gid))
	return binary.AppendUvarint(binary.AppendVarint(b, a.mtime.Sec), uint64(a.mtime.Nsec))
}

// numbers is a frame, or the beginning of one.
func numbers(kind frameKind, list ...uint64) []byte {
	b := []byte{byte(kind)}
	for _, n := range list {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// reader takes a frame apart. The first failure sticks, and what comes after it is zero.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrMalformed, what)
	}
	r.rest = nil
}

// end refuses what comes after a frame.
func (r *reader) end() {
	if len(r.rest) > 0 {
		r.fail("more than a frame")
	}
}

// number is one of at most most.
func (r *reader) number(most uint64) uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > most {
		r.fail("a number")
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) signed() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.fail("a number")
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) text() string {
	n := r.number(mostPath)
	if n > uint64(len(r.rest)) {
		r.fail("a text is cut")
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

func (r *reader) places() []Place {
	const all = 1<<31 - 1
	var list []Place
	for range r.number(mostPlaces) {
		list = append(list, Place{
			Mount: int(r.number(all)), Device: r.number(1<<64 - 1), Inode: r.number(1<<64 - 1),
			Root: int(r.number(all)), Point: r.text(), Path: r.text(),
		})
	}
	if len(list) == 0 {
		r.fail("a file without a place")
	}
	return list
}

func (r *reader) attributes() attributes {
	const all = 1<<32 - 1
	a := attributes{size: int64(r.number(mostSize)), mode: uint32(r.number(all)), uid: uint32(r.number(all)), gid: uint32(r.number(all))}
	a.mtime = fs.Time{Sec: r.signed(), Nsec: uint32(r.number(1e9 - 1))}
	return a
}
