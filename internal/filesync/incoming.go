package filesync

import (
	"errors"
	"fmt"
	"os"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// file writes a small file that came whole.
func (a *applier) file(o *operation) error {
	if err := a.count(int64(len(o.content))); err != nil {
		return err
	}
	if digestOf(o.content) != o.digest {
		return ErrDigest
	}
	if a.inPlace {
		if done, err := a.overwrite(o); done || err != nil {
			return err
		}
	}
	dir, name, err := a.enter(o.path)
	if err != nil {
		return a.lost(o.path, err)
	}
	temp := a.tempName()
	f, err := dir.Create(temp)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(o.content)
	return a.install(dir, temp, name, f, o, err)
}

// overwrite writes a small file into the one that is there, which takes a fraction of making another. Like a patch, it leaves a
// mix when it breaks off, that no digest vouches for. A file with more names may have lost some at the source.
func (a *applier) overwrite(o *operation) (done bool, err error) {
	dir, name, err := a.reach(o.path)
	if err != nil {
		return false, nil
	}
	st, err := dir.Stat(name)
	if err != nil || !st.IsRegular() || st.Nlink != 1 {
		return false, nil // what is the matter with it shows when it is made anew
	}
	f, err := dir.OpenWrite(name)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	r, known := a.t.index.get(inodeOf(&st))
	bare := known && r.holds(&st) && r.plain() && len(o.meta.Xattrs) == 0
	if known {
		r.flags |= flagRacy
		a.t.index.put(r)
	}
	if _, err := f.WriteAt(o.content, 0); err != nil {
		return true, err
	}
	if st.Size > int64(len(o.content)) {
		if err := f.Truncate(int64(len(o.content))); err != nil {
			return true, err
		}
	}
	a.stats.Files++
	a.t.bases.drop(o.path)
	if st, err = fs.StatFile(f); err != nil { // writing may have taken rights and capabilities away
		return true, err
	}
	if err := a.rights(dir, name, &o.meta, &st); err != nil {
		return true, err
	}
	if !bare {
		if err := a.xattrs(dir, name, &o.meta); err != nil {
			return true, err
		}
	}
	if err := dir.SetMtime(name, o.meta.Mtime); err != nil {
		return true, err
	}
	if st, err = fs.StatFile(f); err != nil {
		return true, err
	}
	a.record(&st, o, r)
	return true, nil
}

// install gives a finished file its attributes and its place; err is how writing went.
func (a *applier) install(dir *fs.Dir, temp, name string, f *os.File, o *operation, err error) error {
	if err == nil {
		err = a.fileAttributes(dir, temp, f, &o.meta)
	}
	if err != nil {
		return errors.Join(err, dir.Unlink(temp))
	}
	if err := place(dir, temp, name); err != nil {
		return err
	}
	a.stats.Files++
	a.t.bases.drop(o.path)
	return a.vouch(f, o)
}

// vouch puts a file that is in its place, with its attributes, into the index. Nobody else writes here until the container
// runs, so a ctime of this very moment is not taken for racy.
func (a *applier) vouch(f *os.File, o *operation) error {
	st, err := fs.StatFile(f)
	if err != nil {
		return err
	}
	a.record(&st, o, record{})
	return nil
}

func (a *applier) record(st *fs.Stat, o *operation, old record) {
	r := newRecord(st)
	r.digest, r.name, r.epoch = o.digest, old.name, old.epoch
	if len(o.meta.Xattrs) == 0 {
		r.flags |= flagPlain
	}
	a.t.index.put(r)
}

func (a *applier) count(n int64) error {
	if a.stats.Bytes += n; a.stats.Bytes > a.t.limit.Bytes {
		return refuse("more than %d bytes of content", a.t.limit.Bytes)
	}
	return nil
}

// keep changes no more than the attributes of a file that is there already.
func (a *applier) keep(o *operation) error {
	dir, name, err := a.enter(o.path)
	if err != nil {
		return a.lost(o.path, err)
	}
	r, st, ok := a.holds(dir, name, &o.digest)
	if !ok {
		return a.need(o.path)
	}
	return a.adorn(dir, name, o, r, &st)
}

// holds says whether the regular file name has a content, by the index.
func (a *applier) holds(dir *fs.Dir, name string, digest *Digest) (record, fs.Stat, bool) {
	st, err := dir.Stat(name)
	if err != nil || !st.IsRegular() {
		return record{}, st, false
	}
	r, ok := a.t.index.get(inodeOf(&st))
	return r, st, ok && r.holds(&st) && r.digest == *digest
}

func (a *applier) adorn(dir *fs.Dir, name string, o *operation, r record, st *fs.Stat) error {
	if err := a.attributes(dir, name, &o.meta, st); err != nil {
		return err
	}
	after, err := dir.Stat(name)
	if err != nil {
		return err
	}
	a.record(&after, o, r)
	return nil
}

// move gives a file a new name; the old one is removed by an operation of its own, or replaced.
func (a *applier) move(o *operation) error {
	dir, name, err := a.enter(o.path)
	if err != nil {
		return a.lost(o.path, err)
	}
	from, old, err := a.source(o.from)
	if err != nil {
		return a.lost(o.path, err)
	}
	defer from.Close()
	r, _, ok := a.holds(from, old, &o.digest)
	if !ok {
		return a.need(o.path)
	}
	if err := a.linkOver(from, old, dir, name); err != nil {
		return err
	}
	st, err := dir.Stat(name)
	if err != nil {
		return err
	}
	if b := a.t.bases.get(o.from, o.digest); b != nil {
		a.t.bases.put(o.path, o.digest, b.chunks)
	}
	return a.adorn(dir, name, o, r, &st)
}

// incoming is a large file whose chunks are coming in.
type incoming struct {
	path  string
	dir   *fs.Dir // its own handle: chunks come in several frames
	name  string
	temp  string // empty: the file is patched in its place
	file  *os.File
	known *base
	old   record // of the file that is patched
	sum   summer
	next  int64 // the chunk expected at the earliest
	short bool  // the last chunk has come
	buf   []byte
	// skip: the base is not here. The chunks are passed over, and the file is asked for whole.
	skip bool
}

// begin opens a large file: a new one under a temporary name, or for a patch the one that is there. A patch is written in
// place, for copying gigabytes inside the frozen window is what it avoids. Should it break off, the file is a mix that no
// digest vouches for, and the next pass sends it.
func (a *applier) begin(o *operation) error {
	dir, name, err := a.enter(o.path)
	if vanished(err) {
		a.open = &incoming{path: o.path, skip: true}
		return nil
	}
	if err != nil {
		return err
	}
	in := &incoming{path: o.path, name: name}
	if in.dir, err = dir.Dup(); err != nil {
		return err
	}
	if o.flag {
		err = a.patch(in, o)
	} else {
		in.temp = a.tempName()
		in.file, err = dir.Create(in.temp)
	}
	if err != nil {
		in.dir.Close()
		return err
	}
	a.open = in
	return nil
}

func (a *applier) patch(in *incoming, o *operation) error {
	r, _, ok := a.holds(in.dir, in.name, &o.digest)
	in.known = a.t.bases.get(o.path, o.digest)
	if !ok || in.known == nil {
		in.skip = true
		return nil
	}
	in.old = r
	r.flags |= flagRacy
	a.t.index.put(r)
	a.t.bases.drop(o.path)
	var err error
	in.file, err = in.dir.OpenWrite(in.name)
	return err
}

func (a *applier) chunk(o *operation) error {
	in := a.open
	if o.index < in.next || in.short {
		return refuse("chunk %d out of order", o.index)
	}
	off := o.index * chunkSize
	if off+int64(o.length) > a.t.limit.FileSize {
		return refuse("file of more than %d bytes", a.t.limit.FileSize)
	}
	for _, e := range o.extents {
		if err := a.count(int64(len(e.data))); err != nil {
			return err
		}
	}
	if in.skip {
		in.next = o.index + 1
		return nil
	}
	for ; in.next < o.index; in.next++ {
		in.sum.add(in.gap(in.next, chunkSize, a.t.zero))
	}
	in.next++
	in.short = o.length < chunkSize
	in.sum.add(in.digest(o))
	if in.temp == "" && (len(o.extents) != 1 || len(o.extents[0].data) != o.length) {
		if err := fs.PunchHole(in.file, off, int64(o.length)); err != nil {
			return fmt.Errorf("punch hole: %w", err)
		}
	}
	for _, e := range o.extents {
		if _, err := in.file.WriteAt(e.data, off+int64(e.off)); err != nil {
			return err
		}
	}
	return nil
}

// gap is the digest of a chunk that was not sent: the base's, or a hole.
func (in *incoming) gap(i int64, length int, zero Digest) Digest {
	if in.known != nil && i < int64(len(in.known.chunks)) {
		return in.known.chunks[i]
	}
	if length == chunkSize {
		return zero
	}
	return digestOf(make([]byte, length))
}

func (in *incoming) digest(o *operation) Digest {
	if len(o.extents) == 1 && len(o.extents[0].data) == o.length {
		return digestOf(o.extents[0].data)
	}
	if in.buf == nil {
		in.buf = make([]byte, chunkSize)
	}
	buf := in.buf[:o.length]
	clear(buf)
	for _, e := range o.extents {
		copy(buf[e.off:], e.data)
	}
	return digestOf(buf)
}

// finish verifies a large file and puts it into its place.
func (a *applier) finish(o *operation) error {
	in := a.open
	o.path = in.path
	if in.skip {
		a.open = nil
		return errors.Join(in.dir.Close(), a.need(in.path))
	}
	size, n := o.meta.Size, chunks(o.meta.Size)
	if size > a.t.limit.FileSize || in.next > n || in.short && in.next != n {
		return refuse("file of %d bytes after %d chunks", size, in.next)
	}
	for ; in.next < n; in.next++ {
		in.sum.add(in.gap(in.next, chunkLen(size, in.next), a.t.zero))
	}
	if in.sum.sum() != o.digest {
		return ErrDigest
	}
	if err := in.file.Truncate(size); err != nil {
		return err
	}
	a.open = nil
	defer in.dir.Close()
	defer in.file.Close()
	if in.temp != "" {
		if err := a.install(in.dir, in.temp, in.name, in.file, o, nil); err != nil {
			return err
		}
	} else {
		a.stats.Files++
		if err := a.adorn(in.dir, in.name, o, in.old, nil); err != nil {
			return err
		}
	}
	a.t.bases.put(o.path, o.digest, in.sum.list)
	return nil
}

// leastKept is from how many chunks on the beginning of a file is kept.
const leastKept = 4

// discard drops a large file that will not be finished, or keeps what has come of it: under its name, so that the next listing
// says what that is, and the source goes on behind it.
func (a *applier) discard() error {
	in := a.open
	if in == nil {
		return nil
	}
	a.open = nil
	if in.file == nil { // skipped
		return in.dir.Close()
	}
	whole := in.next
	if in.short {
		whole-- // the last one counts with the end
	}
	var err error
	switch {
	case in.temp == "" && (!a.broken || whole < int64(len(in.known.chunks))): // a mix
	case in.temp != "" && (!a.broken || whole < leastKept):
		err = in.dir.Unlink(in.temp)
	default:
		err = in.file.Truncate(whole * chunkSize)
		if in.temp != "" {
			err = errors.Join(err, place(in.dir, in.temp, in.name))
		}
	}
	return errors.Join(err, in.file.Close(), in.dir.Close())
}
