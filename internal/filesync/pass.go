package filesync

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// pass is one Pass or Delta at the source.
type pass struct {
	s      *Source
	ctx    context.Context // of the call the pass lives for
	ch     Channel
	send   *sender
	frozen bool
	ended  bool // end was the last that was sent: the peer speaks next
	stats  Stats
	open   []string           // files open for writing when the pass began
	dirty  map[inode]struct{} // those, and others whose content must be read
	resent map[inode]struct{} // inodes with several names that got a new inode at the peer
}

// held is what the peer holds at a path, as far as the source knows.
type held struct {
	content bool // a regular file with this digest
	digest  Digest
	listed  bool // the metadata is known too
	meta    metaDigest
}

// intent says how a file is to be looked at.
type intent struct {
	held
	reread bool // the index may not be believed
	kept   bool // the change log says the content is untouched
	// written: the change log says that nothing but the content was touched since it was remembered.
	written bool
	from    string // where the peer has this inode, when not at its path
}

// run decides between the whole tree and the change log's word.
func (p *pass) run() error {
	s := p.s
	why := s.why
	if s.changes != nil {
		why = "the first pass"
		if s.based {
			var err error
			if why, err = p.told(); why == "" {
				return err
			}
		}
	}
	p.stats.Full, p.stats.Reason = true, why
	s.based = false
	if err := p.full(); err != nil {
		return err
	}
	s.based = true
	return nil
}

// told makes the pass by the change log's word; why says that it cannot be. The log is not emptied meanwhile, when the container
// stands still: that is for moments. A full pass takes longer, and what happens on the whole file system would pile up.
func (p *pass) told() (why string, err error) {
	s := p.s
	if p.frozen {
		defer s.changes.pause()()
	}
	c := s.changes.take()
	if c.full != "" {
		return c.full, nil
	}
	if err := s.index.failure(); err != nil {
		return err.Error(), nil
	}
	return "", p.incremental(c)
}

// node sends what is neither a directory's content nor a regular file's.
func (p *pass) node(n *node, h held, fresh bool) error {
	m, err := readMeta(n.dir, n.name, &n.st, false)
	if err != nil {
		return err
	}
	if h.listed && !fresh && h.meta == m.digest() && !h.content {
		return nil
	}
	return p.send.op(&operation{kind: opNode, path: n.path, flag: fresh, meta: *m})
}

// racyWindow covers the coarsest clock that inodes are stamped with: a tick at HZ=100 is 10 ms. (Since Linux 6.13 a ctime
// that was looked at is finer.)
const racyWindow = 20 * time.Millisecond

// file sends a regular file as far as the peer lacks it, and remembers it in the index.
func (p *pass) file(n *node, in *intent) error {
	rec, known := p.s.index.get(inodeOf(&n.st))
	believed := known && !in.reread && rec.holds(&n.st)
	plain := rec.plain() && (believed || known && in.written)
	if known && !in.reread && in.kept && rec.flags&(flagRacy|flagNoDigest) == 0 && rec.size == n.st.Size && rec.mtime == n.st.Mtime {
		believed = true
	}
	m, err := readMeta(n.dir, n.name, &n.st, plain)
	if err != nil {
		return err
	}
	if believed && in.content && rec.digest == in.digest {
		p.remember(n, rec, m, rec.digest, false)
		return p.same(n, in, m, rec.digest)
	}
	p.stats.Reread++
	now := fs.Now()
	f, err := n.dir.OpenFile(n.name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := fs.StatFile(f)
	if err != nil {
		return err
	}
	if !st.Unchanged(&n.st) || !st.IsRegular() {
		p.unstable(n.path)
		if !st.IsRegular() {
			return nil
		}
		m.Size = st.Size
	}
	n.st = st
	racy := !st.Ctime.Before(now.Add(-racyWindow))
	var digest Digest
	var stable bool
	if st.Size <= maxInline {
		digest, stable, err = p.small(f, n, in, m)
	} else {
		digest, stable, err = p.large(f, n, in, m, &rec)
	}
	if err != nil {
		return fmt.Errorf("send %s: %w", n.path, err)
	}
	if !stable {
		p.unstable(n.path)
	}
	_, dirty := p.dirty[inodeOf(&n.st)] // a page that is dirty changes without a new ctime
	p.remember(n, rec, m, digest, racy || dirty || !stable)
	return nil
}

// remember puts a file into the index, under one more path if it is a new one.
func (p *pass) remember(n *node, old record, m *meta, digest Digest, racy bool) {
	r := newRecord(&n.st)
	r.name, r.epoch, r.digest = old.name, old.epoch, digest
	if racy {
		r.flags |= flagRacy
	}
	if len(m.Xattrs) == 0 {
		r.flags |= flagPlain
	}
	p.name(&r, n.path)
	p.s.index.put(r)
}

func (p *pass) name(r *record, path string) {
	if list := p.s.index.pathsOf(r); len(list) == 0 || list[len(list)-1] != path {
		p.s.index.addName(r, path)
	}
}

// same is a file whose content the peer has.
func (p *pass) same(n *node, in *intent, m *meta, digest Digest) error {
	if in.from != "" {
		return p.send.op(&operation{kind: opMove, path: n.path, from: in.from, meta: *m, digest: digest})
	}
	if in.listed && in.meta == m.digest() {
		return nil
	}
	return p.send.op(&operation{kind: opKeep, path: n.path, meta: *m, digest: digest})
}

func (p *pass) small(f *os.File, n *node, in *intent, m *meta) (Digest, bool, error) {
	content, _, stable, err := p.s.read.small(f, &n.st)
	if err != nil {
		return Digest{}, false, err
	}
	digest := digestOf(content)
	p.s.bases.drop(n.path)
	m.Size = int64(len(content))
	if in.content && in.digest == digest {
		return digest, stable, p.same(n, in, m, digest)
	}
	p.sent(n, int64(len(content)))
	err = p.send.op(&operation{kind: opFile, path: n.path, meta: *m, digest: digest, content: content})
	return digest, stable, err
}

// large sends a file by chunks: only those that differ when the peer's are known.
func (p *pass) large(f *os.File, n *node, in *intent, m *meta, rec *record) (digest Digest, stable bool, err error) {
	var known *base
	if in.content {
		known = p.s.bases.get(n.path, in.digest)
	}
	// A file that may well be the same is read for its digest first.
	if in.content && known == nil && (rec.ino == 0 || rec.size == n.st.Size) {
		digest, list, err := p.s.read.digest(f, &n.st)
		if err != nil {
			return digest, false, err
		}
		if digest == in.digest {
			after, err := fs.StatFile(f)
			if err != nil {
				return digest, false, err
			}
			p.s.bases.put(n.path, digest, list)
			return digest, after.Unchanged(&n.st), p.same(n, in, m, digest)
		}
		known = beginning(list, in.digest)
	}
	p.expect(n, rec)
	digest, opened, err := p.stream(f, n, known)
	if err != nil {
		return digest, false, err
	}
	after, err := fs.StatFile(f)
	if err != nil {
		return digest, false, err
	}
	if !opened {
		return digest, after.Unchanged(&n.st), p.same(n, in, m, digest)
	}
	p.s.bases.put(n.path, digest, p.s.read.sum.list)
	p.sent(n, 0)
	err = p.send.op(&operation{kind: opClose, meta: *m, digest: digest})
	return digest, after.Unchanged(&n.st), err
}

// stream sends the chunks of a file that known lacks, after an open operation when there are any.
func (p *pass) stream(f *os.File, n *node, known *base) (digest Digest, opened bool, err error) {
	open := operation{kind: opOpen, path: n.path}
	if known != nil {
		open.flag, open.digest = true, known.digest
	} else if err := p.send.op(&open); err != nil {
		return digest, false, err
	}
	opened = known == nil
	r := p.s.read
	r.sum.reset()
	for i := range chunks(n.st.Size) {
		if err := p.ctx.Err(); err != nil {
			return digest, opened, err
		}
		d, extents, err := r.chunk(f, &n.st, i)
		if err != nil {
			return digest, opened, err
		}
		r.sum.add(d)
		if known != nil && i < int64(len(known.chunks)) && known.chunks[i] == d || known == nil && len(extents) == 0 {
			continue
		}
		if !opened {
			if err := p.send.op(&open); err != nil {
				return digest, false, err
			}
			opened = true
		}
		for _, e := range extents {
			p.stats.Bytes += int64(len(e.data))
		}
		if err := p.send.chunk(&operation{kind: opChunk, index: i, length: chunkLen(n.st.Size, i), extents: extents}); err != nil {
			return digest, opened, err
		}
	}
	digest = r.sum.sum()
	if !opened && digest != known.digest { // shorter, at a chunk's border
		err, opened = p.send.op(&open), true
	}
	return digest, opened, err
}

func (p *pass) sent(n *node, bytes int64) {
	p.stats.Files++
	p.stats.Bytes += bytes
	if n.st.Nlink > 1 {
		if p.resent == nil {
			p.resent = map[inode]struct{}{}
		}
		p.resent[inodeOf(&n.st)] = struct{}{}
	}
}

func (p *pass) unstable(path string) { p.s.pending[path] = struct{}{} }
