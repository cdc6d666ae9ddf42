package filesync

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// applier puts operations into effect beneath the target's root. Whatever is new is made under a temporary name in the
// directory it belongs to and renamed into its place, so that a name never shows half a file; what a killed process leaves
// behind is in the next listing, and is removed by the source because it does not have it.
//
// A directory's own time changes with its entries, so the directories on the way to the last path are kept, each with the
// time it shall have when the operations have left it.
type applier struct {
	t     *Target
	stats *Stats
	stack []level
	open  *incoming
	needs map[string]struct{}
	ops   int64
	temps int
	// inPlace: an incremental pass, of which the last one is made while the container stands still.
	inPlace bool
	// broken: the pass ends because the source is gone, or gives up. Nothing is wrong with what it has sent.
	broken bool
}

// level is a directory that operations were in lately.
type level struct {
	path  string
	dir   *fs.Dir
	mtime fs.Time
	dirty bool // its time has to be set back
}

// maxNeeds bounds what the peer asks for in a pass; more of it means that the two sides do not agree on anything.
const maxNeeds = 1 << 20

func newApplier(t *Target, stats *Stats) *applier {
	return &applier{t: t, stats: stats, needs: map[string]struct{}{}}
}

func (a *applier) frame(ctx context.Context, body []byte) error {
	d := decoder{b: body}
	var o operation
	for len(d.b) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := o.decode(&d); err != nil {
			return err
		}
		if a.ops++; a.ops > a.t.limit.Operations {
			return refuse("more than %d operations", a.t.limit.Operations)
		}
		if err := a.apply(&o); err != nil {
			if o.path == "" && a.open != nil {
				o.path = a.open.path
			}
			return fmt.Errorf("apply %s: %w", o.path, err)
		}
	}
	return nil
}

func (a *applier) apply(o *operation) error {
	if (a.open != nil) != (o.kind == opChunk || o.kind == opClose) {
		return refuse("operation %d out of order", o.kind)
	}
	switch o.kind {
	case opNode:
		return a.node(o)
	case opFile:
		return a.file(o)
	case opKeep:
		return a.keep(o)
	case opMove:
		return a.move(o)
	case opOpen:
		return a.begin(o)
	case opChunk:
		return a.chunk(o)
	case opClose:
		return a.finish(o)
	case opLink:
		return a.link(o)
	default:
		return a.remove(o)
	}
}

// enter returns the directory that a path's last component is in, about to be changed.
func (a *applier) enter(path string) (*fs.Dir, string, error) {
	dir, name, err := a.reach(path)
	if err != nil {
		return nil, "", err
	}
	if top := &a.stack[len(a.stack)-1]; !top.dirty {
		st, err := dir.Stat("")
		if err != nil {
			return nil, "", err
		}
		top.mtime, top.dirty = st.Mtime, true
	}
	return dir, name, nil
}

// reach returns the directory that a path's last component is in.
func (a *applier) reach(path string) (*fs.Dir, string, error) {
	parent, name := splitPath(path)
	if len(name) >= len(a.t.temp) && name[:len(a.t.temp)] == a.t.temp {
		return nil, "", refuse("name %q is reserved", name)
	}
	if err := a.leave(parent); err != nil {
		return nil, "", err
	}
	if len(a.stack) == 0 || a.stack[len(a.stack)-1].path != parent {
		dir, err := a.t.root.Beneath(parent)
		if err != nil {
			return nil, "", err
		}
		a.stack = append(a.stack, level{path: parent, dir: dir})
	}
	return a.stack[len(a.stack)-1].dir, name, nil
}

// leave closes the directories that are not on the way to path.
func (a *applier) leave(path string) error {
	var err error
	for len(a.stack) > 0 && !within(path, a.stack[len(a.stack)-1].path) {
		err = errors.Join(err, a.pop())
	}
	return err
}

func (a *applier) pop() error {
	top := a.stack[len(a.stack)-1]
	a.stack = a.stack[:len(a.stack)-1]
	var err error
	if top.dirty {
		if err = top.dir.SetMtime("", top.mtime); vanished(err) {
			err = nil
		}
	}
	top.dir.Close()
	return err
}

// settle ends what has been sent so far: every directory gets its time, and what could not be applied is returned.
func (a *applier) settle() ([]string, error) {
	if a.open != nil {
		return nil, refuse("end inside the file %q", a.open.path)
	}
	var err error
	for len(a.stack) > 0 {
		err = errors.Join(err, a.pop())
	}
	list := make([]string, 0, len(a.needs))
	for path := range a.needs {
		list = append(list, path)
	}
	clear(a.needs)
	return list, err
}

// close gives up an unfinished file and closes everything.
func (a *applier) close() error {
	err := a.discard()
	for len(a.stack) > 0 {
		err = errors.Join(err, a.pop())
	}
	return err
}

// need asks the source for a file whole.
func (a *applier) need(path string) error {
	if len(a.needs) >= maxNeeds {
		return refuse("more than %d files cannot be found", maxNeeds)
	}
	a.needs[path] = struct{}{}
	return nil
}

// lost turns the failure to find a path's directory into a need. Nothing else may be the matter with it.
func (a *applier) lost(path string, err error) error {
	if vanished(err) {
		return a.need(path)
	}
	return err
}

func (a *applier) tempName() string {
	a.temps++
	return a.t.temp + strconv.Itoa(a.temps)
}

// place renames what was made into its place; what stands there goes. It changes places with that first: a file that is renamed
// over another ext4 and btrfs begin to write to the disk at once, a millisecond each, which in the frozen window is downtime.
func place(dir *fs.Dir, temp, name string) error {
	if err := dir.Exchange(temp, name); err == nil {
		return dir.RemoveAll(temp)
	}
	err := dir.Rename(temp, name) // nothing is there, or the filesystem exchanges nothing
	if errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.ENOTEMPTY) {
		if err = dir.RemoveAll(name); err == nil {
			err = dir.Rename(temp, name)
		}
	}
	if err != nil {
		return errors.Join(err, dir.Unlink(temp))
	}
	return nil
}

func (a *applier) remove(o *operation) error {
	dir, name, err := a.enter(o.path)
	if vanished(err) { // its directory went already
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := dir.Stat(name); vanished(err) {
		return nil
	}
	if err := dir.RemoveAll(name); err != nil {
		return err
	}
	a.t.bases.drop(o.path)
	a.stats.Removed++
	return nil
}

// link gives the inode at o.from one more name. The leader may be missing because it is itself still needed.
func (a *applier) link(o *operation) error {
	dir, name, err := a.enter(o.path)
	if err != nil {
		return a.lost(o.path, err)
	}
	from, old, err := a.source(o.from)
	if err != nil {
		return a.lost(o.path, err)
	}
	defer from.Close()
	leader, err := from.Stat(old)
	if err != nil {
		return a.lost(o.path, err)
	}
	if leader.IsDir() {
		return a.need(o.path)
	}
	if present, err := dir.Stat(name); err == nil && present.Same(&leader) {
		return nil
	}
	return a.linkOver(from, old, dir, name)
}

func (a *applier) linkOver(from *fs.Dir, old string, dir *fs.Dir, name string) error {
	temp := a.tempName()
	if err := dir.Link(from, old, temp); err != nil {
		return err
	}
	if err := place(dir, temp, name); err != nil {
		return err
	}
	// rename does nothing when both names are the same inode's already.
	if err := dir.Unlink(temp); err != nil && !vanished(err) {
		return err
	}
	return nil
}

// source opens the directory of a path that is only read.
func (a *applier) source(path string) (*fs.Dir, string, error) {
	parent, name := splitPath(path)
	dir, err := a.t.root.Beneath(parent)
	return dir, name, err
}
