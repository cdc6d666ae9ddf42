package filesync

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// index remembers the digests of a tree's files by inode, in a hash table on disk: a renamed file keeps its record,
// hard links share one, and the process holds none of it in memory. It only ever saves reading: a record that is missing
// or does not match costs a reread, so a failed write is noted and lived with.
//
// Where more than one filesystem shows through in the tree, the numbers of all but the root's are given anew with each mount: what
// was recorded of files there counts for as long as the index is open.
//
// A host that goes down can lose content that the index vouches for, so the index counts only in the boot that wrote it,
// unless it was marked clean after the tree had reached the disk (sync).
//
//	header   magic "migrate-index-2\n" | slots u64 | fsid u64 | root inode u64 | epoch u32 | clean u32 | boot id [36] | crc32c u32
//	slot     a record, or zeros
type index struct {
	table
	mu    sync.Mutex
	path  string
	log   *slog.Logger
	crc   *crc32.Table
	id    treeID
	boot  [36]byte
	used  uint64
	live  uint64 // of them, those seen in this epoch
	epoch uint32
	since uint32 // the epoch before it was opened
	clean bool
	names names
	err   error // the first failed write: from then on records may be missing
}

// treeID is the tree that an index belongs to, and the st_dev that it has now.
type treeID struct{ fsid, root, dev uint64 }

const (
	indexMagic  = "migrate-index-2\n"
	headerSize  = 88
	headerSpace = 128
	minSlots    = 1 << 12
)

func identify(root *fs.Dir) (treeID, error) {
	st, err := root.Stat("")
	if err != nil {
		return treeID{}, err
	}
	fsid, err := root.FsID()
	return treeID{fsid: fsid, root: st.Ino, dev: st.Dev}, err
}

// openIndex opens the index at path, or begins a new one when there is none or it cannot be used. Without a path it lives
// in an unnamed temporary file. ErrBusy when another process has it.
func openIndex(path string, id treeID, log *slog.Logger) (*index, error) {
	x := &index{path: path, id: id, log: log, crc: crc32.MakeTable(crc32.Castagnoli)}
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		copy(x.boot[:], b)
	}
	if path == "" {
		if err := x.create(minSlots); err != nil {
			return nil, err
		}
		return x, nil
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	if err := fs.Lock(file); err != nil {
		file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrBusy
		}
		return nil, fmt.Errorf("lock index %s: %w", path, err)
	}
	x.file = file
	if err := x.load(); err != nil {
		log.Info("file index is built anew", "path", path, "reason", err)
		if err := x.create(minSlots); err != nil {
			return nil, err
		}
	}
	return x, nil
}

var errEmpty = errors.New("there was none")

// load reads the whole table once, so that a damaged one is found out before it is believed.
func (x *index) load() error {
	head := make([]byte, headerSpace)
	if _, err := io.ReadFull(x.file, head); err != nil {
		return errEmpty
	}
	le := binary.LittleEndian
	if !bytes.HasPrefix(head, []byte(indexMagic)) {
		return errors.New("another format")
	}
	if le.Uint32(head[headerSize-4:]) != crc32.Checksum(head[:headerSize-4], x.crc) {
		return errors.New("header is damaged")
	}
	x.slots = le.Uint64(head[16:])
	x.epoch = le.Uint32(head[40:])
	x.since = x.epoch
	clean := le.Uint32(head[44:]) == 1
	switch {
	case le.Uint64(head[24:]) != x.id.fsid || le.Uint64(head[32:]) != x.id.root:
		return errors.New("it is of another tree")
	case !clean && !bytes.Equal(head[48:84], x.boot[:]):
		return errors.New("the host restarted before the tree was synced")
	case x.slots < minSlots || x.slots&(x.slots-1) != 0:
		return errors.New("header is damaged")
	}
	return x.scan(x.slots, func(*record) error { x.used++; return nil })
}

func (x *index) scan(slots uint64, f func(*record) error) error {
	const batch = 512
	buf := make([]byte, batch*recordSize)
	for i := uint64(0); i < slots; i += batch {
		b := buf[:min(batch, slots-i)*recordSize]
		if _, err := x.file.ReadAt(b, x.offset(i)); err != nil {
			return fmt.Errorf("read index: %w", err)
		}
		for ; len(b) > 0; b = b[recordSize:] {
			if binary.LittleEndian.Uint64(b) == 0 {
				continue
			}
			var r record
			if !r.decode(b, x.crc) {
				return errors.New("a record is damaged")
			}
			if err := f(&r); err != nil {
				return err
			}
		}
	}
	return nil
}

// create puts an empty table in the place of the present one. The lock goes over to the new file.
func (x *index) create(slots uint64) error {
	dir, pattern := "", "migrate-index-*"
	if x.path != "" {
		dir, pattern = filepath.Dir(x.path), filepath.Base(x.path)+".*"
	}
	file, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return fmt.Errorf("make index: %w", err)
	}
	err = errors.Join(file.Truncate(headerSpace+int64(slots)*recordSize), fs.Lock(file))
	if err == nil && x.path == "" {
		err = os.Remove(file.Name())
	} else if err == nil {
		err = os.Rename(file.Name(), x.path)
	}
	if err != nil {
		file.Close()
		return errors.Join(fmt.Errorf("make index: %w", err), os.Remove(file.Name()))
	}
	if x.file != nil {
		x.file.Close()
	}
	x.table = table{file: file, slots: slots}
	x.used, x.clean = 0, false
	return x.writeHeader()
}

func (x *index) writeHeader() error {
	le := binary.LittleEndian
	head := make([]byte, headerSpace)
	copy(head, indexMagic)
	le.PutUint64(head[16:], x.slots)
	le.PutUint64(head[24:], x.id.fsid)
	le.PutUint64(head[32:], x.id.root)
	le.PutUint32(head[40:], x.epoch)
	if x.clean {
		le.PutUint32(head[44:], 1)
	}
	copy(head[48:84], x.boot[:])
	le.PutUint32(head[headerSize-4:], crc32.Checksum(head[:headerSize-4], x.crc))
	if _, err := x.file.WriteAt(head, 0); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return nil
}

// local is an inode as the table has it.
func (x *index) local(id inode) inode {
	if id.dev == x.id.dev {
		id.dev = 0
	}
	return id
}

// find returns the slot of an inode, as local gives it, or the empty one where it would go.
func (x *index) find(id inode) (slot uint64, r record, ok bool, err error) {
	slot = x.home(id)
	for range x.slots {
		b, err := x.slot(slot, false)
		if err != nil {
			return 0, r, false, err
		}
		switch ino := binary.LittleEndian.Uint64(b); {
		case ino == 0:
			return slot, r, false, nil
		case ino == id.ino && uint64(binary.LittleEndian.Uint32(b[88:])) == id.dev:
			ok = r.decode(b, x.crc)
			return slot, r, ok, nil
		}
		slot = (slot + 1) & (x.slots - 1)
	}
	return 0, r, false, errors.New("index is full")
}

// get returns what is known of an inode.
func (x *index) get(id inode) (record, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, r, ok, err := x.find(x.local(id))
	if err != nil {
		x.note(err)
	}
	if !ok || err != nil || r.dev != 0 && r.epoch <= x.since {
		return record{}, false
	}
	r.dev = id.dev
	return r, true
}

// put remembers r; it counts as seen in the present epoch.
func (x *index) put(r record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r.ino == 0 {
		return
	}
	if r.epoch != x.epoch {
		r.name, r.epoch = 0, x.epoch
	}
	if x.clean {
		x.clean = false
		x.note(x.writeHeader())
	}
	if x.used+1 > x.slots/4*3 {
		x.note(x.rebuild(4*x.slots, 0))
	}
	x.note(x.insert(&r))
}

func (x *index) insert(r *record) error {
	stored := *r
	stored.inode = x.local(r.inode)
	slot, old, _, err := x.find(stored.inode)
	if err != nil {
		return err
	}
	b, err := x.slot(slot, true)
	if err != nil {
		return err
	}
	stored.encode(b, x.crc)
	if old.ino == 0 {
		x.used++
	}
	if old.ino == 0 || old.epoch != r.epoch {
		x.live++
	}
	return nil
}

// rebuild copies the records that were seen since an epoch into a table of another size.
func (x *index) rebuild(slots uint64, since uint32) error {
	if err := x.flush(); err != nil {
		return err
	}
	old := &index{table: x.table, crc: x.crc}
	live := x.live
	defer func() { x.live = live }()
	x.file = nil
	if err := x.create(slots); err != nil {
		x.file = old.file
		return err
	}
	defer old.file.Close()
	return old.scan(old.slots, func(r *record) error {
		if r.epoch < since {
			return nil
		}
		return x.insert(r)
	})
}

// begin starts the epoch of a full pass: no path is known yet.
func (x *index) begin() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.epoch++
	x.live, x.err = 0, nil
	if err := x.names.reset(filepath.Dir(x.path)); err != nil {
		return err
	}
	return x.writeHeader()
}

// sweep ends a full pass: when most records are of inodes that are gone, they are dropped.
func (x *index) sweep() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.used < 2*x.live+minSlots {
		return
	}
	slots := uint64(minSlots)
	for slots < 2*x.live {
		slots *= 2
	}
	x.note(x.rebuild(slots, x.epoch))
}

// current says whether the record was seen in this epoch, which is when its names count.
func (x *index) current(r *record) bool { return r.epoch == x.epoch }

// addName puts a path in front of the record's; the caller puts the record.
func (x *index) addName(r *record, path string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	prev := r.name
	if r.epoch != x.epoch {
		prev = 0
	}
	off, err := x.names.add(prev, path)
	x.note(err)
	r.name, r.epoch = off, x.epoch
}

// pathsOf returns the paths that the inode had in this epoch, the first one first.
func (x *index) pathsOf(r *record) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r.epoch != x.epoch {
		return nil
	}
	list, err := x.names.list(r.name)
	x.note(err)
	return list
}

// failure returns the first write that failed since begin.
func (x *index) failure() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

func (x *index) note(err error) {
	if err == nil || x.err != nil {
		return
	}
	x.err = err
	x.log.Warn("file index: files may be read again", "path", x.path, "err", err)
}

// markClean writes the index to the disk and lets it count beyond this boot. The tree must be on the disk already.
func (x *index) markClean() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.path == "" {
		return nil
	}
	if err := errors.Join(x.flush(), x.file.Sync()); err != nil {
		return fmt.Errorf("sync index: %w", err)
	}
	x.clean = true
	if err := x.writeHeader(); err != nil {
		return err
	}
	return x.file.Sync()
}

func (x *index) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return errors.Join(x.flush(), x.file.Close(), x.names.close())
}
