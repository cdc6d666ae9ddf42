package filesync

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// TargetOptions may be nil.
type TargetOptions struct {
	// IndexPath is where the digests are kept between moves, as at the source. The same file serves a Source of this tree
	// later, so that a move back sends only what changed.
	IndexPath string
	Limits    Limits
	Log       *slog.Logger // nil discards
}

// Limits bounds what a source can make this side do in one pass. Zero fields take the defaults.
type Limits struct {
	Operations int64 // default 50 million
	FileSize   int64 // apparent size of one file, default 16 TiB
	Bytes      int64 // of content in all, default without a limit but the disk
}

// Target is the side that is brought up to date. The caller closes it.
type Target struct {
	path  string
	root  *fs.Dir
	index *index
	limit Limits
	log   *slog.Logger
	temp  string // begins the name of whatever is not in its place yet
	based bool   // a full pass has been applied
	bases bases
	zero  Digest // of a chunk of zeros
}

// OpenTarget opens the directory beneath which everything is applied; it must exist. ErrBusy when its index is in use.
func OpenTarget(root string, o *TargetOptions) (*Target, error) {
	if o == nil {
		o = &TargetOptions{}
	}
	t := &Target{path: root, limit: o.Limits.withDefaults(), log: o.Log, zero: digestOf(make([]byte, chunkSize))}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	token := make([]byte, 8)
	_, _ = rand.Read(token) // never fails, by its documentation
	t.temp = ".migrate-" + hex.EncodeToString(token) + "-"
	var err error
	if t.root, _, err = fs.OpenRoot(root); err != nil {
		return nil, fmt.Errorf("open tree: %w", err)
	}
	id, err := identify(t.root)
	if err == nil {
		t.index, err = openIndex(o.IndexPath, id, t.log)
	}
	if err != nil {
		t.root.Close()
		return nil, err
	}
	return t, nil
}

// Limit sets other limits for the passes to come.
func (t *Target) Limit(l Limits) { t.limit = l.withDefaults() }

func (l Limits) withDefaults() Limits {
	if l.Operations == 0 {
		l.Operations = 50_000_000
	}
	if l.FileSize == 0 {
		l.FileSize = 16 << 40
	}
	if l.Bytes == 0 {
		l.Bytes = 1 << 62
	}
	return l
}

// Serve takes part in one Pass or Delta and returns when it is applied, or given up by either side. Nothing is synced to the
// disk: see Sync. After an error the tree is a mix of old and new files, each of them whole but for the one that an incremental pass was
// writing; another full pass mends it.
func (t *Target) Serve(ctx context.Context, ch Channel) (Stats, error) {
	start := time.Now()
	v := &serving{t: t, ch: ch}
	err := v.run(ctx)
	v.stats.Elapsed = time.Since(start)
	if err != nil {
		return v.stats, fmt.Errorf("apply to %s: %w", t.path, err)
	}
	t.log.Debug("files applied", "root", t.path, "stats", v.stats)
	return v.stats, nil
}

// Sync writes the tree to the disk (syncfs), and then lets the index count beyond a crash of the host. It takes as long as
// the disk needs for everything that is dirty on that filesystem: call it when the container runs again.
func (t *Target) Sync(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := t.root.SyncFS(); err != nil {
		return fmt.Errorf("sync %s: %w", t.path, err)
	}
	return t.index.markClean()
}

// Close closes the index.
func (t *Target) Close() error {
	return errors.Join(t.index.close(), t.root.Close())
}
