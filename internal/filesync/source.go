package filesync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// SourceOptions may be nil.
type SourceOptions struct {
	// IndexPath is where the digests are kept between moves, on a local disk and not beneath the root; the file's directory
	// must exist. Empty: every file is read in the first pass.
	IndexPath string
	// Exclude lists paths beneath the root that are neither sent nor removed at the peer, nor is what is beneath them.
	Exclude []string
	// Only lists names in the root; when there are any, nothing else in it is sent, nor removed at the peer.
	Only []string
	// DirtyFiles returns the paths beneath the root that can be changed without the change log telling: what is open for
	// writing or mapped writable (see WritableFiles). It is called at the start and the end of a full pass and at the start of a Delta;
	// on an overlay, which does not tell when a mapping ends, at the start of every pass.
	DirtyFiles func() ([]string, error)
	Log        *slog.Logger // nil discards
}

// Source is the side whose tree is the truth. Its methods are not for concurrent use. The caller closes it.
type Source struct {
	path    string
	root    *fs.Dir
	index   *index
	opt     SourceOptions
	log     *slog.Logger
	changes changeLog // nil: nothing tells, every pass is full
	why     string    // why changes is nil
	based   bool      // the peer is known to hold what the index says, but for what the change log names
	pending map[string]struct{}
	opened  map[string]struct{} // open for writing at some time since the last delta, where no log tells that a mapping ends
	bases   bases
	read    *reader
}

// OpenSource opens the tree at root. ErrBusy when its index is in use.
func OpenSource(root string, o *SourceOptions) (*Source, error) {
	s := &Source{path: root, why: "no change log was started", pending: map[string]struct{}{}, opened: map[string]struct{}{}}
	if o != nil {
		s.opt = *o
	}
	s.log = s.opt.Log
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, p := range s.opt.Exclude {
		if err := checkPath(p); err != nil {
			return nil, fmt.Errorf("exclude: %w", err)
		}
	}
	for _, p := range s.opt.Only {
		if err := checkPath(p); err != nil || strings.Contains(p, "/") {
			return nil, fmt.Errorf("only: %q is no name in the root", p)
		}
	}
	var err error
	if s.root, _, err = fs.OpenRoot(root); err != nil {
		return nil, fmt.Errorf("open tree: %w", err)
	}
	id, err := identify(s.root)
	if err == nil {
		s.index, err = openIndex(s.opt.IndexPath, id, s.log)
	}
	if err != nil {
		s.root.Close()
		return nil, err
	}
	s.read = newReader()
	return s, nil
}

// Watch starts the change log, before the first Pass. Where there can be none (no CAP_SYS_ADMIN, a kernel before 5.17, a
// filesystem without file handles) the reason is logged and every later pass compares the whole tree.
func (s *Source) Watch(ctx context.Context) error {
	if s.changes != nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var err error
	if s.root.IsOverlay() {
		s.changes, err = watchOverlay(ctx, s.path)
	} else {
		s.changes, err = watchFilesystem(s.path, s.root, s.log)
	}
	if err != nil {
		s.changes, s.why = nil, err.Error()
		s.log.Warn("no change log: the whole tree will be compared while the container is frozen", "root", s.path, "reason", err)
	}
	return nil
}

// Pass brings the peer's tree up to date while the container runs. The first one compares the trees, later ones only what the
// change log names. Files that change while they are read are counted and sent again by the next pass.
func (s *Source) Pass(ctx context.Context, ch Channel) (Stats, error) {
	return s.run(ctx, ch, false)
}

// Delta brings the peer's tree up to date for good, while the container is frozen. ErrUnstable when a file changes even so.
func (s *Source) Delta(ctx context.Context, ch Channel) (Stats, error) {
	return s.run(ctx, ch, true)
}

func (s *Source) run(ctx context.Context, ch Channel, frozen bool) (Stats, error) {
	start := time.Now()
	p := &pass{s: s, ctx: ctx, ch: ch, send: newSender(ctx, ch), frozen: frozen}
	p.stats.Log = "none"
	if s.changes != nil {
		p.stats.Log = s.changes.name()
	}
	err := p.run()
	if err != nil {
		err = p.abandon(err)
	}
	p.stats.Unstable = int64(len(s.pending))
	p.stats.Elapsed = time.Since(start)
	if err != nil {
		s.based = false // what was taken from the change log may not have arrived
		return p.stats, fmt.Errorf("synchronise %s: %w", s.path, err)
	}
	if frozen { // what it has read of those that are not open any more is their last word
		clear(s.opened)
		p.noteOpened(p.open)
	}
	s.log.Debug("files synchronised", "root", s.path, "stats", p.stats)
	return p.stats, nil
}

// Close ends the change log and closes the index.
func (s *Source) Close() error {
	var err error
	if s.changes != nil {
		err = s.changes.close()
	}
	return errors.Join(err, s.index.close(), s.root.Close())
}

// excluded says whether a path is to be left alone.
func (s *Source) excluded(path string) bool {
	for _, e := range s.opt.Exclude {
		if within(path, e) {
			return true
		}
	}
	if len(s.opt.Only) == 0 || path == rootPath {
		return false
	}
	top, _, _ := strings.Cut(path, "/")
	return !slices.Contains(s.opt.Only, top)
}

// shelters says whether something excluded lies beneath path, which then may not be removed.
func (s *Source) shelters(path string) bool {
	for _, e := range s.opt.Exclude {
		if within(e, path) {
			return true
		}
	}
	return false
}

func firstKey(m map[string]struct{}) string {
	first := ""
	for k := range maps.Keys(m) {
		if first == "" || k < first {
			first = k
		}
	}
	return first
}

// bases remembers the chunks of the large files that the peer has, within a budget.
type bases struct {
	mu     sync.Mutex // at the peer the listing fills it while changes are applied
	of     map[string]*base
	chunks int
}

const maxBaseChunks = maxListed // of all files together

func (b *bases) get(path string, digest Digest) *base {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.of[path]; e != nil && e.digest == digest {
		return e
	}
	return nil
}

func (b *bases) put(path string, digest Digest, list []Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(path)
	if len(list) < 2 || b.chunks+len(list) > maxBaseChunks {
		return
	}
	if b.of == nil {
		b.of = map[string]*base{}
	}
	b.of[path] = &base{digest: digest, chunks: list}
	b.chunks += len(list)
}

func (b *bases) drop(path string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(path)
}

func (b *bases) remove(path string) {
	if e := b.of[path]; e != nil {
		b.chunks -= len(e.chunks)
		delete(b.of, path)
	}
}
