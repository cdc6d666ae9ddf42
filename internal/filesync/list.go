package filesync

import (
	"context"
	"fmt"
	"strings"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// list sends what the tree holds, in walk order. Files that the index does not vouch for are read; their number is what a
// second move of the same tree saves.
func (t *Target) list(ctx context.Context, ch Channel, stats *Stats) error {
	l := lister{t: t, ctx: ctx, ch: ch, read: newReader(), buf: []byte{byte(frameHave)}}
	if err := walk(ctx, t.root, rootPath, l.visit); err != nil {
		return err
	}
	if err := l.flush(); err != nil {
		return err
	}
	stats.Entries, stats.Reread = l.entries, l.reread
	return ch.Send(ctx, []byte{byte(frameListed)})
}

type lister struct {
	t       *Target
	ctx     context.Context // of the pass the lister lives for
	ch      Channel
	read    *reader
	buf     []byte
	prev    string
	entries int64
	reread  int64
}

func (l *lister) visit(n *node) error {
	if strings.HasPrefix(n.name, l.t.temp) { // not in its place yet
		return errSkipDir
	}
	l.entries++
	if n.st.Mountpoint && n.path != rootPath {
		return errSkipDir
	}
	e := listed{path: n.path}
	var err error
	if !n.st.IsDir() && n.st.Nlink > 1 {
		if leader, ok := l.leader(n); ok {
			e.meta = linkDigest(leader)
			return l.add(&e)
		}
	}
	var r record
	if n.st.IsRegular() {
		if r, err = l.digest(n); err != nil {
			return err
		}
		e.file, e.digest = true, r.digest
	}
	m, err := readMeta(n.dir, n.name, &n.st, r.plain())
	if err != nil {
		return err
	}
	e.meta = m.digest()
	if n.st.IsRegular() || n.st.Nlink > 1 && !n.st.IsDir() {
		l.remember(n, r, m)
	}
	return l.add(&e)
}

// leader returns the first path of an inode that was met before.
func (l *lister) leader(n *node) (string, bool) {
	r, ok := l.t.index.get(inodeOf(&n.st))
	if !ok || !l.t.index.current(&r) {
		return "", false
	}
	paths := l.t.index.pathsOf(&r)
	if len(paths) == 0 {
		return "", false
	}
	return paths[0], true
}

// digest returns a record whose digest is the file's, read if need be.
func (l *lister) digest(n *node) (record, error) {
	r, ok := l.t.index.get(inodeOf(&n.st))
	if ok && r.holds(&n.st) {
		return r, nil
	}
	l.reread++
	now := fs.Now()
	f, err := n.dir.OpenFile(n.name)
	if err != nil {
		return r, err
	}
	defer f.Close()
	d, chunks, err := l.read.digest(f, &n.st)
	if err != nil {
		return r, fmt.Errorf("list %s: %w", n.path, err)
	}
	l.t.bases.put(n.path, d, chunks) // it may be what came of a file before the link broke
	r = newRecord(&n.st)
	r.digest = d
	if !n.st.Ctime.Before(now.Add(-racyWindow)) {
		r.flags |= flagRacy
	}
	return r, nil
}

// remember keeps the digest, and the path of what has several names.
func (l *lister) remember(n *node, r record, m *meta) {
	if !n.st.IsRegular() {
		r = newRecord(&n.st)
		r.flags |= flagNoDigest
	}
	if len(m.Xattrs) == 0 {
		r.flags |= flagPlain
	}
	if n.st.Nlink > 1 {
		l.t.index.addName(&r, n.path)
	}
	l.t.index.put(r)
}

func (l *lister) add(e *listed) error {
	prev := l.prev
	if len(l.buf) == 1 {
		prev = ""
	}
	l.buf = appendListed(l.buf, prev, e)
	l.prev = e.path
	if len(l.buf) < batchSize {
		return nil
	}
	return l.flush()
}

func (l *lister) flush() error {
	if len(l.buf) == 1 {
		return nil
	}
	err := l.ch.Send(l.ctx, l.buf)
	l.buf = l.buf[:1]
	return err
}
