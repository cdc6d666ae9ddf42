package filesync

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// node is one name that a walk meets. dir is open during the visit only.
type node struct {
	dir  *fs.Dir
	name string // in dir; "" is dir itself
	path string
	st   fs.Stat
}

// errSkipDir, returned by a visit, leaves out what is beneath.
var errSkipDir = errors.New("skip this directory")

// walk visits start and everything beneath, a directory before what is in it, names in the order of their bytes, other
// filesystems left out. Names that vanish meanwhile are passed over. It never follows a symlink.
func walk(ctx context.Context, root *fs.Dir, start string, visit func(*node) error) error {
	parent, name := splitPath(start)
	dir, err := root.Beneath(parent)
	if err != nil {
		if vanished(err) {
			return nil
		}
		return fmt.Errorf("walk %s: %w", start, err)
	}
	defer dir.Close()
	return walkEntry(ctx, dir, name, start, visit)
}

func walkEntry(ctx context.Context, dir *fs.Dir, name, path string, visit func(*node) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(path) > maxPath {
		return fmt.Errorf("walk %.64s...: path of %d bytes, the limit is %d", path, len(path), maxPath)
	}
	st, err := dir.Stat(name)
	if err != nil {
		if vanished(err) {
			return nil
		}
		return fmt.Errorf("walk %s: %w", path, err)
	}
	if st.Mountpoint && path != rootPath && !st.IsDir() { // a file mounted over another: what is beneath cannot be seen
		return nil
	}
	n := node{dir: dir, name: name, path: path, st: st}
	switch err := visit(&n); {
	case errors.Is(err, errSkipDir):
		return nil
	case vanished(err):
		return nil
	case err != nil:
		return err
	}
	if !st.IsDir() || st.Mountpoint && path != rootPath {
		return nil
	}
	return walkDir(ctx, dir, name, path, visit)
}

func walkDir(ctx context.Context, parent *fs.Dir, name, path string, visit func(*node) error) error {
	dir, err := parent.Beneath(name)
	if err != nil {
		if vanished(err) {
			return nil
		}
		return fmt.Errorf("walk %s: %w", path, err)
	}
	defer dir.Close()
	list, err := dir.Names()
	if err != nil {
		return fmt.Errorf("walk %s: %w", path, err)
	}
	slices.Sort(list)
	for _, child := range list {
		if err := walkEntry(ctx, dir, child, joinPath(path, child), visit); err != nil {
			return err
		}
	}
	return nil
}
