package keeper

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/filesync"
	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/sys/fs"
)

// tree is one directory of a container.
type tree struct {
	container   *container
	source      *filesync.Source
	name, path  string
	only        []string // names of files in it; empty: everything
	destination string
}

// key names its index. A directory of which only some files travel is another tree to each container.
func (t *tree) key() string {
	if len(t.only) == 0 {
		return t.path
	}
	return filepath.Join(t.path, "only", t.container.ID())
}

// busyLimit bounds the wait for the end of an earlier move of the tree, which may still be on its way to the disk here.
const busyLimit = time.Minute

func (t *tree) open(ctx context.Context, index string) (*filesync.Source, error) {
	ctx, cancel := context.WithTimeout(ctx, busyLimit)
	defer cancel()
	for {
		source, err := filesync.OpenSource(t.path, &filesync.SourceOptions{IndexPath: index, Only: t.only, DirtyFiles: t.dirty, Log: t.container.log})
		if !errors.Is(err, filesync.ErrBusy) {
			return source, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// Pass brings the peer's tree up to date while the container runs.
func (t *tree) Pass(ctx context.Context, ch handover.Channel) (uint64, error) {
	stats, err := t.source.Pass(ctx, ch)
	t.container.log.Info("files sent", "tree", t.name, "bytes", stats.Bytes, "took", stats.Elapsed)
	t.container.log.Debug("pass", "tree", t.name, "stats", stats)
	return uint64(stats.Bytes), err
}

// Delta sends what has changed since.
func (t *tree) Delta(ctx context.Context, ch handover.Channel) (uint64, error) {
	stats, err := t.source.Delta(ctx, ch)
	t.container.log.Info("files in the freeze", "tree", t.name, "bytes", stats.Bytes, "took", stats.Elapsed)
	t.container.log.Debug("delta", "tree", t.name, "stats", stats)
	return uint64(stats.Bytes), err
}

// Again: what has changed until then is not looked at in the stop.
func (t *tree) Again() bool { return true }

// dirty names what the change log can't tell of: files that are open for writing or mapped. A write through a mapping
// raises no event.
func (t *tree) dirty() ([]string, error) {
	pids, err := t.container.Processes()
	if err != nil {
		return nil, err
	}
	return filesync.WritableFiles(t.path, pids)
}

// size is an estimate of what the tree takes on a disk, in bytes: a file of several names once, and nothing that is mounted in it.
func (t *tree) size() uint64 {
	var blocks int64
	for _, name := range t.only {
		if st, err := fs.StatPath(filepath.Join(t.path, name)); err == nil {
			blocks += st.Blocks
		}
	}
	if len(t.only) > 0 {
		return uint64(blocks) * 512
	}
	var device uint64
	named := make(map[[2]uint64]bool)
	_ = filepath.WalkDir(t.path, func(path string, e os.DirEntry, err error) error {
		var st *syscall.Stat_t
		if err == nil && (e.IsDir() || e.Type().IsRegular()) {
			st = statOf(e)
		}
		switch {
		case st == nil: // names come and go while it runs
		case path == t.path:
			device = st.Dev
		case e.IsDir() && st.Dev != device: // of files an overlay may say which of its layers they are on
			return filepath.SkipDir
		case e.IsDir():
		case st.Nlink > 1 && named[[2]uint64{st.Dev, st.Ino}]:
		default:
			if st.Nlink > 1 {
				named[[2]uint64{st.Dev, st.Ino}] = true
			}
			blocks += st.Blocks
		}
		return nil
	})
	return uint64(blocks) * 512
}

// statOf is nil for what has just gone.
func statOf(e os.DirEntry) *syscall.Stat_t {
	info, err := e.Info()
	if err != nil {
		return nil
	}
	return info.Sys().(*syscall.Stat_t)
}
