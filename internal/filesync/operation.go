package filesync

import (
	"encoding/binary"
	"syscall"
)

// The operations in a changes frame. A large file is open, chunks in ascending order, close.
//
//	node     path | flags u8 | meta                      anything but a regular file; flags&1: empty the directory first
//	file     path | meta | digest [32] | content         a small file, whole
//	keep     path | meta | digest [32]                   the content is there already, only the metadata may differ
//	move     path | meta | digest [32] | from path       the content is at from (renamed at the source)
//	open     path | flags u8 | base [32] if flags&1      flags&1: patch the file that is there and has the digest base
//	chunk    index uvarint | length uvarint | n uvarint | n * { offset uvarint, length uvarint } | data
//	                                                     one whole chunk: what is outside the extents is a hole
//	close    meta | digest [32]                          meta.Size is the final size
//	link     path | from path                            one more name of the inode at from
//	remove   path                                        with everything beneath
type opKind byte

const (
	opNode opKind = iota + 1
	opFile
	opKeep
	opMove
	opOpen
	opChunk
	opClose
	opLink
	opRemove
)

// maxInline is the size up to which a file's content travels inside its operation.
const maxInline = 128 << 10

// maxChunk keeps a chunk's offset within an int64.
const maxChunk = 1<<43 - 2

// maxExtents is a chunk in pages, every other one a hole.
const maxExtents = chunkSize / 4096

type operation struct {
	kind    opKind
	path    string
	from    string
	meta    meta
	digest  Digest
	flag    bool // node: empty it first; open: digest is the base to patch
	content []byte
	index   int64
	length  int // of the chunk: only the last one is shorter than chunkSize
	extents []extent
}

type extent struct {
	off  int // in the chunk
	data []byte
}

func (o *operation) append(b []byte) []byte {
	b = append(b, byte(o.kind))
	if o.kind != opChunk && o.kind != opClose {
		b = appendString(b, o.path)
	}
	switch o.kind {
	case opNode:
		b = o.meta.append(append(b, flagByte(o.flag)))
	case opFile:
		b = append(o.meta.append(b), o.digest[:]...)
		b = appendBytes(b, o.content)
	case opKeep, opClose:
		b = append(o.meta.append(b), o.digest[:]...)
	case opMove:
		b = append(o.meta.append(b), o.digest[:]...)
		b = appendString(b, o.from)
	case opOpen:
		b = append(b, flagByte(o.flag))
		if o.flag {
			b = append(b, o.digest[:]...)
		}
	case opChunk:
		b = o.appendChunkHead(b)
		for _, e := range o.extents {
			b = append(b, e.data...)
		}
	case opLink:
		b = appendString(b, o.from)
	}
	return b
}

// appendChunkHead is a chunk without its data, which the sender hands to the channel uncopied.
func (o *operation) appendChunkHead(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(o.index))
	b = binary.AppendUvarint(b, uint64(o.length))
	b = binary.AppendUvarint(b, uint64(len(o.extents)))
	for _, e := range o.extents {
		b = binary.AppendUvarint(b, uint64(e.off))
		b = binary.AppendUvarint(b, uint64(len(e.data)))
	}
	return b
}

func flagByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// decode reads the next operation. content and extents are parts of the frame.
func (o *operation) decode(d *decoder) error {
	*o = operation{kind: opKind(d.byte())}
	if o.kind != opChunk && o.kind != opClose {
		o.path = d.path()
	}
	switch o.kind {
	case opNode:
		o.flag = d.byte()&1 != 0
		o.meta.decode(d)
	case opFile:
		o.meta.decode(d)
		o.digest, o.content = d.digest(), d.bytes(maxInline)
		if d.err == nil && o.meta.Size != int64(len(o.content)) {
			d.fail("content of %d bytes for a size of %d", len(o.content), o.meta.Size)
		}
	case opKeep, opClose:
		o.meta.decode(d)
		o.digest = d.digest()
	case opMove:
		o.meta.decode(d)
		o.digest, o.from = d.digest(), d.path()
	case opOpen:
		if o.flag = d.byte()&1 != 0; o.flag {
			o.digest = d.digest()
		}
	case opChunk:
		o.decodeChunk(d)
	case opLink:
		o.from = d.path()
	case opRemove:
	default:
		d.fail("operation %d", o.kind)
	}
	o.check(d)
	return d.err
}

func (o *operation) decodeChunk(d *decoder) {
	o.index = d.size()
	size, n := d.uvarint(), d.uvarint()
	if size == 0 || size > chunkSize || n > maxExtents || o.index > maxChunk {
		d.fail("chunk %d of %d bytes in %d extents", o.index, size, n)
		return
	}
	o.length = int(size)
	end, lengths := 0, make([]int, n)
	o.extents = make([]extent, n)
	for i := range o.extents {
		off, length := d.uvarint(), d.uvarint()
		if off < uint64(end) || off > size || length == 0 || length > size-off {
			d.fail("extent at %d of %d bytes", off, length)
			return
		}
		o.extents[i].off, lengths[i] = int(off), int(length)
		end = int(off + length)
	}
	for i, length := range lengths {
		o.extents[i].data = d.take(length)
	}
}

// check refuses what no source of ours would send.
func (o *operation) check(d *decoder) {
	if d.err != nil {
		return
	}
	regular := o.meta.Mode&syscall.S_IFMT == syscall.S_IFREG
	switch o.kind {
	case opNode:
		if regular {
			d.fail("a regular file as a node")
		}
		if o.path == rootPath && (o.flag || o.meta.Mode&syscall.S_IFMT != syscall.S_IFDIR) {
			d.fail("the root is to be replaced")
		}
	case opFile, opKeep, opMove, opClose:
		if !regular {
			d.fail("content for mode %#o", o.meta.Mode)
		}
	}
	if o.path == rootPath && o.kind != opNode || o.from == rootPath {
		d.fail("the root as a file")
	}
}
