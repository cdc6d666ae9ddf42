package filesync

import (
	"fmt"
	"maps"
	"slices"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// An incremental pass looks only at the paths that may have changed, and sends what is there now:
//
//  1. gather: what the change log names, what was unstable last time, what is open for writing
//  2. expand: directories that appeared with their content, hard links with all their names; what was only written to is sent
//     at once
//  3. send directories, then renamed files (their content is still at the old place), other files, links, removals
//  4. end; the peer asks for what it could not find, then confirms
//
// What the peer holds is known from the index: it was filled by what has been sent, and keeps the paths of every inode.
type incremental struct {
	*pass
	flags   map[string]changeFlag
	leaders map[inode]string // of inodes with several names: the path the others are linked to
	whole   bool             // nothing that the peer is said to hold counts
	still   bool             // no directory has appeared: every path that the peer has leads to the same there
	last    *fs.Dir          // of the path before: neighbours come together
	lastDir string
	plan
}

// plan is what will be sent, by path.
type plan struct {
	dirs, moves, files, links, removals []string
	leaderOf                            map[string]string
}

func (p *pass) incremental(c *changes) error {
	i := &incremental{pass: p, flags: map[string]changeFlag{}, leaders: map[inode]string{}}
	i.leaderOf = map[string]string{}
	defer func() { i.last.Close() }()
	// Even when there is nothing to say: the peer serves one pass, and waits for its end.
	if err := p.ch.Send(p.ctx, encodeBegin(passIncremental)); err != nil {
		return err
	}
	p.send.least = leastBatch
	if err := i.gather(c); err != nil {
		return err
	}
	if err := i.expand(); err != nil {
		return err
	}
	if err := i.send(c); err != nil {
		return err
	}
	return p.settle()
}

func (i *incremental) gather(c *changes) error {
	for _, id := range c.inodes {
		if r, ok := i.s.index.get(id); ok {
			for _, path := range i.s.index.pathsOf(&r) {
				c.mark(path, changeMore)
			}
		}
	}
	i.still = true
	for path, f := range c.paths {
		i.flags[path] |= f
		i.still = i.still && f&changeTree == 0
	}
	for path := range i.s.pending {
		i.flags[path] |= changeContent
	}
	clear(i.s.pending)
	if !i.frozen && i.s.changes.unmapped() {
		return nil
	}
	if err := i.findDirty(); err != nil || !i.frozen {
		return err
	}
	for _, path := range i.open {
		i.flags[path] |= changeContent
	}
	for path := range i.s.opened {
		i.flags[path] |= changeContent
	}
	return nil
}

// at looks at a path as it is now; dir is valid until the next call. gone says that there is nothing.
func (i *incremental) at(path string) (n *node, gone bool, err error) {
	dir, name := splitPath(path)
	if i.last == nil || i.lastDir != dir {
		i.last.Close()
		i.last = nil
		d, err := i.s.root.Beneath(dir)
		if vanished(err) {
			return nil, true, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("open %s: %w", dir, err)
		}
		i.last, i.lastDir = d, dir
	}
	st, err := i.last.Stat(name)
	if vanished(err) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("stat %s: %w", path, err)
	}
	return &node{dir: i.last, name: name, path: path, st: st}, false, nil
}

func (i *incremental) expand() error {
	for _, path := range slices.SortedFunc(maps.Keys(i.flags), comparePaths) {
		if err := i.ctx.Err(); err != nil {
			return err
		}
		if i.s.excluded(path) {
			continue
		}
		n, gone, err := i.at(path)
		if err != nil {
			return err
		}
		switch {
		case gone:
			i.removals = append(i.removals, path)
		case n.st.IsDir() && i.flags[path]&changeTree != 0:
			err = i.tree(path)
		case n.st.IsDir():
			i.dirs = append(i.dirs, path)
		default:
			err = i.leaf(n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tree adds a directory with all that is in it: it was moved here, and no event names its entries.
func (i *incremental) tree(path string) error {
	return walk(i.ctx, i.s.root, path, func(n *node) error {
		if i.s.excluded(n.path) {
			return errSkipDir
		}
		if n.path != path {
			if _, named := i.flags[n.path]; named { // its own turn comes
				if n.st.IsDir() && i.flags[n.path]&changeTree != 0 {
					return errSkipDir
				}
				return nil
			}
		}
		if n.st.IsDir() {
			i.dirs = append(i.dirs, n.path)
			return nil
		}
		return i.leaf(n)
	})
}

// leaf plans what is no directory.
func (i *incremental) leaf(n *node) error {
	r, known := i.s.index.get(inodeOf(&n.st))
	known = known && i.s.index.current(&r)
	if n.st.Nlink > 1 {
		return i.group(n, &r, known)
	}
	if known && n.st.IsRegular() && i.lastPath(&r, n.path) != n.path {
		i.moves = append(i.moves, n.path)
		return nil
	}
	if known && i.still && n.st.IsRegular() && i.flags[n.path] == changeWritten && r.flags&flagNoDigest == 0 {
		return i.written(n, &r)
	}
	i.files = append(i.files, n.path)
	return nil
}

// written sends a file that the peer has, and that was written to since. Nothing that is sent later makes its way another one.
func (i *incremental) written(n *node, r *record) error {
	i.stats.Entries++
	err := i.file(n, &intent{held: held{content: true, digest: r.digest}, reread: true, written: true})
	if vanished(err) {
		i.unstable(n.path)
		return nil
	}
	return err
}

// lastPath is where the peer has an inode, or path when it is not known.
func (i *incremental) lastPath(r *record, path string) string {
	if list := i.s.index.pathsOf(r); len(list) > 0 {
		return list[len(list)-1]
	}
	return path
}

// group plans an inode with several names: the leader is one that the peer has already, where there is one; every other
// name is linked to it again, for the leader's inode at the peer may be a new one then.
func (i *incremental) group(n *node, r *record, known bool) error {
	if leader, ok := i.leaders[inodeOf(&n.st)]; ok {
		if leader != n.path && i.leaderOf[n.path] == "" {
			i.leaderOf[n.path] = leader
			i.links = append(i.links, n.path)
		}
		return nil
	}
	var paths []string
	if known {
		for _, path := range i.s.index.pathsOf(r) {
			if o, gone, err := i.at(path); err != nil {
				return err
			} else if !gone && o.st.Same(&n.st) && !slices.Contains(paths, path) && !i.s.excluded(path) {
				paths = append(paths, path)
			}
		}
	}
	if !slices.Contains(paths, n.path) {
		paths = append(paths, n.path)
	}
	i.leaders[inodeOf(&n.st)] = paths[0]
	i.flags[paths[0]] |= i.flags[n.path] & changeContent
	i.files = append(i.files, paths[0])
	for _, path := range paths[1:] {
		i.leaderOf[path] = paths[0]
		i.links = append(i.links, path)
	}
	return nil
}

func (i *incremental) send(c *changes) error {
	for _, step := range []struct {
		paths []string
		do    func(*node, *changes) error
	}{
		{i.dirs, func(n *node, _ *changes) error {
			fresh := n.path != rootPath && i.flags[n.path]&changeFresh != 0 && !i.s.shelters(n.path)
			return i.node(n, held{}, fresh)
		}},
		{i.moves, i.sendFile},
		{i.files, i.sendFile},
		{i.links, i.sendLink},
	} {
		slices.SortFunc(step.paths, comparePaths)
		for _, path := range step.paths {
			if err := i.each(path, c, step.do); err != nil {
				return err
			}
		}
	}
	for _, path := range i.removals {
		i.stats.Entries++
		if i.s.shelters(path) {
			continue
		}
		if err := i.pass.send.op(&operation{kind: opRemove, path: path}); err != nil {
			return err
		}
	}
	return nil
}

// each looks at one path again and sends it. What has vanished since it was planned will be named again.
func (i *incremental) each(path string, c *changes, do func(*node, *changes) error) error {
	if err := i.ctx.Err(); err != nil {
		return err
	}
	n, gone, err := i.at(path)
	if err != nil {
		return err
	}
	i.stats.Entries++
	if gone {
		i.unstable(path)
		return nil
	}
	err = do(n, c)
	if vanished(err) {
		i.unstable(path)
		return nil
	}
	return err
}

func (i *incremental) sendFile(n *node, c *changes) error {
	if n.st.IsDir() { // it took a file's place since
		i.unstable(n.path)
		return nil
	}
	if !n.st.IsRegular() {
		if n.st.Nlink > 1 {
			r := newRecord(&n.st)
			r.flags = flagNoDigest
			i.name(&r, n.path)
			i.s.index.put(r)
		}
		return i.node(n, held{}, false)
	}
	in := &intent{reread: i.flags[n.path]&changeContent != 0}
	in.reread = in.reread || c.modified == nil || c.modified(n.dir, n.name)
	in.kept = !in.reread
	if r, ok := i.s.index.get(inodeOf(&n.st)); ok && !i.whole && i.s.index.current(&r) && r.flags&flagNoDigest == 0 {
		in.content, in.digest = true, r.digest
		if n.st.Nlink == 1 {
			if from := i.lastPath(&r, n.path); from != n.path {
				in.from = from
			}
		}
	}
	return i.file(n, in)
}

func (i *incremental) sendLink(n *node, _ *changes) error {
	leader := i.leaderOf[n.path]
	if r, ok := i.s.index.get(inodeOf(&n.st)); ok && i.s.index.current(&r) {
		if !slices.Contains(i.s.index.pathsOf(&r), n.path) {
			i.s.index.addName(&r, n.path)
			i.s.index.put(r)
		}
	}
	return i.pass.send.op(&operation{kind: opLink, path: n.path, from: leader})
}

// again looks once more at paths: at those that the peer could not find, which are sent whole, or those that changed while
// they were read.
func (p *pass) again(paths []string, whole bool) error {
	i := &incremental{pass: p, flags: map[string]changeFlag{}, leaders: map[inode]string{}}
	i.leaderOf = map[string]string{}
	i.whole = whole
	defer func() { i.last.Close() }()
	for _, path := range paths {
		if i.s.excluded(path) {
			return refuse("the peer asks for %q, which is excluded", path)
		}
		i.flags[path] |= changeContent
		// The reason may be that a directory on the way is missing there.
		for dir, _ := splitPath(path); dir != rootPath; dir, _ = splitPath(dir) {
			i.flags[dir] &^= changeTree
		}
	}
	if err := i.expand(); err != nil {
		return err
	}
	return i.send(&changes{})
}
