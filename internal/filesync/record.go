package filesync

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// inode names a file in a tree. The number alone does not: the layers of an overlay and the subvolumes of btrfs count each for
// themselves.
type inode struct{ dev, ino uint64 }

func inodeOf(st *fs.Stat) inode { return inode{dev: st.Dev, ino: st.Ino} }

// record is what the index knows of one inode. Its digest is the content's as long as the inode still has this ctime and
// size.
type record struct {
	inode
	ctime  fs.Time
	mtime  fs.Time
	size   int64
	digest Digest
	name   uint64 // the newest of its paths in the names file of this epoch; 0 = none
	epoch  uint32 // the full pass that saw it last
	flags  uint32
}

const (
	// flagRacy: the content was read within a tick of its ctime, so it can have changed again without a new one.
	flagRacy = 1 << iota
	// flagPlain: it has no extended attributes.
	flagPlain
	// flagNoDigest: kept for its names only (a device or symlink with several).
	flagNoDigest
)

// A record on disk, little endian:
//
//	ino u64 | ctime s64 | mtime s64 | ctime_ns u32 | mtime_ns u32 | size u64 | digest [32] | name u64 | epoch u32 | flags u32 | dev u32 | crc32c u32
//
// dev is 0 on the filesystem of the tree's root, whose own number is another after each mount.
const recordSize = 96

func newRecord(st *fs.Stat) record {
	return record{inode: inodeOf(st), ctime: st.Ctime, mtime: st.Mtime, size: st.Size}
}

// holds says whether the digest is still the content's.
func (r *record) holds(st *fs.Stat) bool {
	return r.flags&(flagRacy|flagNoDigest) == 0 && r.ino == st.Ino && r.ctime == st.Ctime && r.size == st.Size
}

func (r *record) plain() bool { return r.flags&flagPlain != 0 }

func (r *record) encode(b []byte, table *crc32.Table) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], r.ino)
	le.PutUint64(b[8:], uint64(r.ctime.Sec))
	le.PutUint64(b[16:], uint64(r.mtime.Sec))
	le.PutUint32(b[24:], r.ctime.Nsec)
	le.PutUint32(b[28:], r.mtime.Nsec)
	le.PutUint64(b[32:], uint64(r.size))
	copy(b[40:72], r.digest[:])
	le.PutUint64(b[72:], r.name)
	le.PutUint32(b[80:], r.epoch)
	le.PutUint32(b[84:], r.flags)
	le.PutUint32(b[88:], uint32(r.dev))
	le.PutUint32(b[92:], crc32.Checksum(b[:92], table))
}

func (r *record) decode(b []byte, table *crc32.Table) bool {
	le := binary.LittleEndian
	*r = record{
		inode:  inode{dev: uint64(le.Uint32(b[88:])), ino: le.Uint64(b[0:])},
		ctime:  fs.Time{Sec: int64(le.Uint64(b[8:])), Nsec: le.Uint32(b[24:])},
		mtime:  fs.Time{Sec: int64(le.Uint64(b[16:])), Nsec: le.Uint32(b[28:])},
		size:   int64(le.Uint64(b[32:])),
		digest: Digest(b[40:72]),
		name:   le.Uint64(b[72:]),
		epoch:  le.Uint32(b[80:]),
		flags:  le.Uint32(b[84:]),
	}
	return le.Uint32(b[92:]) == crc32.Checksum(b[:92], table)
}
