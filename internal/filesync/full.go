package filesync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
)

// A full pass merges two walks in the same order, the source's tree and the peer's listing, as both come in:
//
//  1. the change log is emptied: what changes from here on is in it
//  2. begin is sent; the peer starts to list its tree
//  3. what the peer has and the tree has not is removed; of the rest, what differs is sent
//  4. end; the peer asks for what it could not find, then confirms
func (p *pass) full() error {
	s := p.s
	if s.changes != nil {
		if err := s.changes.reset(); err != nil {
			return err
		}
	}
	if err := s.index.begin(); err != nil {
		return err
	}
	clear(s.pending)
	if err := p.findDirty(); err != nil {
		return err
	}
	for path := range s.opened {
		p.mistrust(path)
	}
	if err := p.ch.Send(p.ctx, encodeBegin(passFull)); err != nil {
		return err
	}
	list := newListing(p.ctx, p.ch)
	m := merge{pass: p, list: list}
	err := m.run()
	list.stop()
	if err == nil {
		err = p.settle()
	}
	if err != nil {
		return err
	}
	s.index.sweep()
	return p.distrust()
}

// merge is the meeting of the two walks.
type merge struct {
	*pass
	list    *listing
	removed string // the last directory removed at the peer: its entries need no removal of their own
	hidden  string // a mountpoint whose own entries cannot be seen here
}

func (m *merge) run() error {
	if err := walk(m.ctx, m.s.root, rootPath, m.visit); err != nil {
		return err
	}
	for {
		e, err := m.list.peek()
		if err != nil || e == nil {
			return err
		}
		if err := m.gone(e.path); err != nil {
			return err
		}
		m.list.next()
	}
}

func (m *merge) visit(n *node) error {
	if m.s.excluded(n.path) {
		return errSkipDir
	}
	m.stats.Entries++
	h, err := m.at(n.path)
	if err != nil {
		return err
	}
	if n.st.Mountpoint && n.path != rootPath {
		m.hidden = n.path
	}
	if n.st.IsDir() {
		return m.node(n, h, false)
	}
	if n.st.Nlink > 1 {
		if done, err := m.link(n, h); done || err != nil {
			return err
		}
	}
	if !n.st.IsRegular() {
		return m.other(n, h)
	}
	_, dirty := m.dirty[inodeOf(&n.st)]
	return m.file(n, &intent{held: h, reread: dirty})
}

// at skips the peer's listing up to a path, removing what the source has not, and returns what the peer has there.
func (m *merge) at(path string) (held, error) {
	for {
		e, err := m.list.peek()
		if err != nil || e == nil {
			return held{}, err
		}
		switch c := comparePaths(e.path, path); {
		case c > 0:
			return held{}, nil
		case c == 0:
			h := held{content: e.file, digest: e.digest, listed: true, meta: e.meta}
			m.list.next()
			return h, nil
		}
		if err := m.gone(e.path); err != nil {
			return held{}, err
		}
		m.list.next()
	}
}

func (m *merge) gone(path string) error {
	if m.removed != "" && within(path, m.removed) || m.hidden != "" && within(path, m.hidden) ||
		m.s.excluded(path) || m.s.shelters(path) || path == rootPath {
		return nil
	}
	m.removed = path
	return m.send.op(&operation{kind: opRemove, path: path})
}

// link sends a further name of an inode that was met already; done says so.
func (m *merge) link(n *node, h held) (done bool, err error) {
	r, ok := m.s.index.get(inodeOf(&n.st))
	if !ok || !m.s.index.current(&r) {
		return false, nil
	}
	paths := m.s.index.pathsOf(&r)
	if len(paths) == 0 {
		return false, nil
	}
	leader := paths[0]
	m.s.index.addName(&r, n.path)
	m.s.index.put(r)
	if _, resent := m.resent[inodeOf(&n.st)]; !resent && h.listed && h.meta == linkDigest(leader) {
		return true, nil
	}
	return true, m.send.op(&operation{kind: opLink, path: n.path, from: leader})
}

// other sends a symlink, device, fifo or socket.
func (m *merge) other(n *node, h held) error {
	if n.st.Nlink > 1 {
		r := newRecord(&n.st)
		r.flags = flagNoDigest
		m.s.index.addName(&r, n.path)
		m.s.index.put(r)
		m.sent(n, 0)
		m.stats.Files--
	}
	return m.node(n, h, false)
}

// listing is the peer's, received ahead of the merge by one goroutine.
type listing struct {
	batches chan []listed
	quit    chan struct{}
	done    chan struct{}
	failed  atomic.Pointer[error]
	batch   []listed
}

func newListing(ctx context.Context, ch Channel) *listing {
	l := &listing{batches: make(chan []listed, 2), quit: make(chan struct{}), done: make(chan struct{})}
	go l.receive(ctx, ch)
	return l
}

// receive ends with the listing, and reads it to its end even when nobody wants it any more.
func (l *listing) receive(ctx context.Context, ch Channel) {
	defer close(l.done)
	defer close(l.batches)
	var buf []byte
	for {
		var err error
		if buf, err = ch.Recv(ctx, buf); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			l.fail(fmt.Errorf("receive listing: %w", err))
			return
		}
		kind, body, err := splitFrame(buf)
		if err != nil {
			l.fail(err)
			return
		}
		switch kind {
		case frameListed:
			return
		case frameFail:
			l.fail(decodeFail(body))
			return
		case frameHave:
		default:
			l.fail(refuse("frame %s inside the listing", kind))
			return
		}
		batch, err := decodeListed(body)
		if err != nil {
			l.fail(err)
			return
		}
		select {
		case l.batches <- batch:
		case <-l.quit:
		}
	}
}

func (l *listing) fail(err error) { l.failed.Store(&err) }

// peek returns the next line, nil after the last one.
func (l *listing) peek() (*listed, error) {
	if e := l.failed.Load(); e != nil {
		return nil, *e
	}
	for len(l.batch) == 0 {
		batch, ok := <-l.batches
		if !ok {
			if e := l.failed.Load(); e != nil {
				return nil, *e
			}
			return nil, nil
		}
		l.batch = batch
	}
	return &l.batch[0], nil
}

func (l *listing) next() { l.batch = l.batch[1:] }

// stop waits until the listing has come to its end.
func (l *listing) stop() {
	close(l.quit)
	<-l.done
}
