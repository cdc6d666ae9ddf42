package keeper

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/internal/sys/fs"
)

// bind is a bind mount of the container as this host has it.
type bind struct {
	specs.Mount
	index int      // in the config's mounts
	path  string   // its source, links followed
	stat  *fs.Stat // nil when it can't be looked at
	err   error    // why not
	kind  int64    // of its file system
	where *volume  // what of the trees it is; nil when it does not travel
}

// bindsOf are the bind mounts of a config, and what they lead to.
func bindsOf(spec *specs.Spec, bundle string) []*bind {
	var all []*bind
	for i, m := range spec.Mounts {
		if !preflight.IsBind(m) {
			continue
		}
		b := &bind{Mount: m, index: i, path: absolute(m.Source, bundle)}
		if path, err := filepath.EvalSymlinks(b.path); err == nil {
			b.path = path
		}
		st, err := fs.StatPath(b.path)
		if err == nil {
			b.kind, _, err = fs.Kind(b.path)
		}
		if err == nil {
			b.stat = &st
		}
		b.err = err
		all = append(all, b)
	}
	return all
}

// absolute is the source of a bind mount, which a config may give relative to its bundle.
func absolute(source, bundle string) string {
	if filepath.IsAbs(source) {
		return source
	}
	return filepath.Join(bundle, source)
}

// isContent tells what can be carried from what only can be there: sockets, devices, and what the kernel makes up.
func (b *bind) isContent() bool {
	return b.stat != nil && (b.stat.IsDir() || b.stat.IsRegular()) && !fs.IsKernels(b.kind)
}

func (b *bind) readOnly() bool {
	return slices.Contains(b.Options, "ro") || slices.Contains(b.Options, "rro")
}

// plan decides which directories travel: the rootfs, and what bind mounts show, each directory once. One that is beneath
// another goes with that, so that at the peer, too, they are one; files of one directory go together.
func (c *container) plan() {
	c.binds = bindsOf(c.Spec(), c.Plan().Bundle)
	c.trees = []*tree{{container: c, name: "rootfs", path: c.Plan().Rootfs}}
	if c.order.Volumes != VolumesCopy {
		return
	}
	outer := slices.Clone(c.binds)
	slices.SortStableFunc(outer, func(a, b *bind) int { return cmp.Compare(len(a.path), len(b.path)) })
	for _, b := range outer {
		if b.isContent() && b.stat.IsDir() {
			b.where = c.within(b)
		}
		if b.isContent() && b.stat.IsDir() && b.where == nil {
			b.where = c.addTree(b, &tree{path: b.path})
		}
	}
	for _, b := range outer {
		if !b.isContent() || b.stat.IsDir() {
			continue
		}
		if b.where = c.within(b); b.where == nil {
			b.where = c.addFile(b)
		}
	}
}

func (c *container) addTree(b *bind, t *tree) *volume {
	t.container, t.name, t.destination = c, "volume-"+strconv.Itoa(len(c.trees)), b.Destination
	c.trees = append(c.trees, t)
	return &volume{Mount: b.index, Tree: len(c.trees) - 1}
}

// addFile has a single file carried, in a tree with nothing else in it but others of the same directory.
func (c *container) addFile(b *bind) *volume {
	dir, name := filepath.Split(b.path)
	dir = filepath.Clean(dir)
	for i, t := range c.trees {
		if len(t.only) > 0 && t.path == dir {
			if !slices.Contains(t.only, name) {
				t.only = append(t.only, name)
			}
			return &volume{Mount: b.index, Tree: i, Path: name}
		}
	}
	v := c.addTree(b, &tree{path: dir, only: []string{name}})
	v.Path = name
	return v
}

// within finds a bind mount in a tree that travels already. What is mounted in the tree is not of it, even if its path says so.
func (c *container) within(b *bind) *volume {
	for i, t := range c.trees {
		if len(t.only) > 0 {
			continue
		}
		if rel, ok := t.holds(b); ok {
			return &volume{Mount: b.index, Tree: i, Path: rel}
		}
	}
	return nil
}

// holds tells whether what is bound is part of the tree, and where.
func (t *tree) holds(b *bind) (rel string, ok bool) {
	root, _, err := fs.OpenRoot(t.path)
	if err != nil {
		return "", false
	}
	defer root.Close()
	if st, err := root.Stat(""); err == nil && st.Same(b.stat) {
		return "", true
	}
	top, err := filepath.EvalSymlinks(t.path)
	if err != nil {
		return "", false
	}
	rel, ok = strings.CutPrefix(b.path, strings.TrimSuffix(top, "/")+"/")
	if !ok {
		return "", false
	}
	parent, err := root.Beneath(filepath.Dir(rel))
	if err != nil {
		return "", false
	}
	defer parent.Close()
	st, err := parent.Stat(filepath.Base(rel))
	return rel, err == nil && st.Same(b.stat)
}

// volumes are the bind mounts that travel, for the peer.
func (c *container) volumes() []volume {
	var all []volume
	for _, b := range c.binds {
		if b.where != nil {
			all = append(all, *b.where)
		}
	}
	return all
}

// judgeBinds finds those that may not go along, and those that are not what they were.
func (c *container) judgeBinds() preflight.Findings {
	var f preflight.Findings
	for _, b := range c.binds {
		switch {
		case b.stat == nil: // what the container has there can be neither carried nor compared
			f = append(f, preflight.Misfit(preflight.Blocker, preflight.BindMount, "put it back, or restart the container without it",
				"the source of what is bind-mounted at %s can no longer be looked at: %v", b.Destination, b.err)...)
		case c.order.Volumes == VolumesRefuse && b.isContent():
			f = append(f, preflight.Misfit(preflight.Blocker, preflight.BindMount, "move it with --volumes copy or shared",
				"%s is bind-mounted at %s", b.path, b.Destination)...)
		case b.where != nil && b.path == "/":
			f = append(f, preflight.Misfit(preflight.Blocker, preflight.BindMount, "move it with --volumes shared, or bind what it needs only",
				"the whole root of this host is bind-mounted at %s, and would be copied", b.Destination)...)
		}
		if !b.isContent() || c.shows(b) {
			continue
		}
		f = append(f, preflight.Misfit(preflight.Warning, preflight.BindMount, "restart the container, or put the file back",
			"%s, bind-mounted at %s, has been replaced since: at the peer it is what is there now", b.path, b.Destination)...)
	}
	return append(append(f, c.judgeTrees()...), c.judgeOthers()...)
}

// judgeTrees finds the volumes that may not be carried, because moves themselves write to them all the time.
func (c *container) judgeTrees() preflight.Findings {
	var f preflight.Findings
	for _, t := range c.trees[min(1, len(c.trees)):] {
		if len(t.only) > 0 || t.path == "/" { // the root has been found already
			continue
		}
		for _, own := range append(c.order.own(), c.Plan().Bundle) {
			if !isWithin(own, t.path) {
				continue
			}
			f = append(f, preflight.Misfit(preflight.Blocker, preflight.BindMount, "move it with --volumes shared, or bind what it needs only",
				"%s, bind-mounted at %s, would be copied, and %s is in it, where this move writes to", t.path, t.destination, own)...)
			break
		}
	}
	return f
}

// shows tells whether the container still has mounted what its source leads to. What can't be told is taken for it.
func (c *container) shows(b *bind) bool {
	dir, err := fs.OpenWithin(fmt.Sprintf("/proc/%d/root", c.InitPid()), filepath.Dir(b.Destination))
	if err != nil {
		return true
	}
	defer dir.Close()
	st, err := dir.Stat(filepath.Base(b.Destination))
	return err != nil || st.Same(b.stat) || st.Type() == syscall.S_IFLNK
}

// localBinds are those that do not travel: destination in the container, source on this host.
func (c *container) localBinds() map[string]string {
	all := make(map[string]string)
	for _, b := range c.binds {
		if b.where == nil {
			all[b.Destination] = b.path
		}
	}
	return all
}

// markBinds describes those that do not travel to the peer. What it must share with this host gets a mark.
func (c *container) markBinds() ([]preflight.Bind, error) {
	var all []preflight.Bind
	for _, b := range c.binds {
		if b.where != nil || b.stat == nil {
			continue
		}
		facts, err := preflight.ReadBind(b.path)
		if err != nil {
			return nil, err
		}
		facts.Mount, facts.Equal = b.index, b.stat.IsRegular() && b.readOnly()
		if b.isContent() {
			mark, err := preflight.LeaveMark(b.path)
			if err == nil {
				c.marks = append(c.marks, mark)
				facts.Mark = mark.Token
			} else {
				c.log.Debug("a shared mount is compared by what it looks like", "path", b.path, "reason", err)
			}
		}
		all = append(all, *facts)
	}
	return all, nil
}

// Offered removes the marks: the peer has looked.
func (c *container) Offered() {
	if err := c.unmark(); err != nil {
		c.log.Warn("a mark stays on a shared mount", "error", err)
	}
}

// unmark removes the marks.
func (c *container) unmark() error {
	var err error
	for _, m := range c.marks {
		err = errors.Join(err, m.Close())
	}
	c.marks = nil
	return err
}
