package filesync

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/zeebo/blake3"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// meta is everything about an inode but its content and its names.
type meta struct {
	Mode   uint32 // type and permissions
	UID    uint32
	GID    uint32
	Mtime  fs.Time
	Size   int64  // of a regular file
	Rdev   uint64 // of a device
	Target string // of a symlink
	Xattrs []xattr
}

type xattr struct {
	Name  string
	Value []byte
}

const (
	maxXattrName  = 255
	maxXattrs     = 512 << 10 // bytes of names and values; more would not fit a frame beside a path
	metaDigestLen = 16
)

// metaDigest stands for a meta in the peer's listing.
type metaDigest [metaDigestLen]byte

// readMeta reads what stat has not told: the symlink's target and the extended attributes. plain says that the index
// knows there are none.
func readMeta(dir *fs.Dir, name string, st *fs.Stat, plain bool) (*meta, error) {
	m := &meta{Mode: st.Mode, UID: st.UID, GID: st.GID, Mtime: st.Mtime}
	switch {
	case st.IsRegular():
		m.Size = st.Size
	case st.IsDevice():
		m.Rdev = st.Rdev
	case st.IsSymlink():
		target, err := dir.Readlink(name)
		if err != nil {
			return nil, err
		}
		m.Target = target
	}
	if plain {
		return m, nil
	}
	var err error
	m.Xattrs, err = readXattrs(dir, name)
	return m, err
}

func readXattrs(dir *fs.Dir, name string) ([]xattr, error) {
	names, err := dir.Xattrs(name)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	slices.Sort(names)
	list := make([]xattr, 0, len(names))
	total := 0
	for _, n := range names {
		if !carried(n) {
			continue
		}
		v, err := dir.Xattr(name, n)
		if errors.Is(err, syscall.ENODATA) { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		if total += len(n) + len(v); total > maxXattrs {
			return nil, fmt.Errorf("read xattrs of %s: more than %d bytes", name, maxXattrs)
		}
		list = append(list, xattr{Name: n, Value: v})
	}
	return list, nil
}

// carried says whether an extended attribute goes over. Integrity signatures are bound to one host's inode and keys, and the
// peer's kernel makes its own.
func carried(name string) bool {
	return name != "security.evm" && name != "security.ima" && !strings.HasPrefix(name, "system.nfs4_")
}

// digest sums up the metadata for comparison across hosts.
func (m *meta) digest() metaDigest {
	var buf [512]byte
	sum := blake3.Sum256(m.append(buf[:0]))
	return metaDigest(sum[:metaDigestLen])
}

// linkDigest stands in the listing for a name that is a further hard link to the inode at leader.
func linkDigest(leader string) metaDigest {
	sum := blake3.Sum256(append([]byte("link\x00"), leader...))
	return metaDigest(sum[:metaDigestLen])
}

func (m *meta) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(m.Mode))
	b = binary.AppendUvarint(b, uint64(m.UID))
	b = binary.AppendUvarint(b, uint64(m.GID))
	b = binary.AppendVarint(b, m.Mtime.Sec)
	b = binary.AppendUvarint(b, uint64(m.Mtime.Nsec))
	switch m.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		b = binary.AppendUvarint(b, uint64(m.Size))
	case syscall.S_IFCHR, syscall.S_IFBLK:
		b = binary.AppendUvarint(b, m.Rdev)
	case syscall.S_IFLNK:
		b = appendString(b, m.Target)
	}
	b = binary.AppendUvarint(b, uint64(len(m.Xattrs)))
	for _, x := range m.Xattrs {
		b = appendString(b, x.Name)
		b = appendBytes(b, x.Value)
	}
	return b
}

func (m *meta) decode(d *decoder) {
	m.Mode = d.uint32()
	m.UID = d.uint32()
	m.GID = d.uint32()
	m.Mtime.Sec = d.varint()
	m.Mtime.Nsec = d.uint32()
	if m.Mtime.Nsec >= 1e9 {
		d.fail("nanoseconds %d", m.Mtime.Nsec)
	}
	switch m.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		m.Size = d.size()
	case syscall.S_IFCHR, syscall.S_IFBLK:
		m.Rdev = d.uvarint()
	case syscall.S_IFLNK:
		m.Target = d.string(maxPath)
		if m.Target == "" || strings.IndexByte(m.Target, 0) >= 0 {
			d.fail("symlink target %q", m.Target)
		}
	case syscall.S_IFDIR, syscall.S_IFIFO, syscall.S_IFSOCK:
	default:
		d.fail("mode %#o", m.Mode)
	}
	total := 0
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		x := xattr{Name: d.string(maxXattrName), Value: slices.Clone(d.bytes(maxXattrs))}
		if x.Name == "" || strings.IndexByte(x.Name, 0) >= 0 {
			d.fail("xattr name %q", x.Name)
		}
		if total += len(x.Name) + len(x.Value); total > maxXattrs {
			d.fail("more than %d bytes of xattrs", maxXattrs)
		}
		m.Xattrs = append(m.Xattrs, x)
	}
}
