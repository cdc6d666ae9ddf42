package filesync

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// overlayLog is the change log of an overlay mount: whatever changes in it changes in its upper directory, which is walked
// and compared with how it was. overlayfs hands out no file handles that fanotify's events could be resolved by, and its
// writes raise no event on the filesystem beneath.
type overlayLog struct {
	ctx   context.Context // of Watch
	upper *fs.Dir
	seen  map[string]upperState
}

type upperState struct {
	ino   uint64
	ctime fs.Time
	size  int64
	// handle is a directory's. An inode number is given to the next one that is made.
	handle fs.Handle
	// racy: it was looked at within a tick of its ctime, and can have changed since without a new one.
	racy bool
}

func watchOverlay(ctx context.Context, path string) (*overlayLog, error) {
	dir, err := upperDir(path)
	if err != nil {
		return nil, fmt.Errorf("find upper directory of %s: %w", path, err)
	}
	upper, _, err := fs.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	l := &overlayLog{ctx: context.WithoutCancel(ctx), upper: upper}
	if err := l.reset(); err != nil {
		upper.Close()
		return nil, err
	}
	return l, nil
}

// upperDir finds the upper directory of the overlay mounted at path. The mount's options name it as it was given: it
// counts only when it is absolute and still leads to a directory.
func upperDir(path string) (string, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(resolved))
	if err != nil {
		return "", err
	}
	if len(mounts) == 0 || mounts[0].FSType != "overlay" {
		return "", errors.New("it is no mountpoint of an overlay")
	}
	for opt := range strings.SplitSeq(mounts[0].VFSOptions, ",") {
		if dir, ok := strings.CutPrefix(opt, "upperdir="); ok {
			if !filepath.IsAbs(dir) {
				return "", fmt.Errorf("it is given as %q", dir)
			}
			info, err := os.Stat(dir)
			if err == nil && !info.IsDir() {
				err = syscall.ENOTDIR
			}
			return dir, err
		}
	}
	return "", errors.New("the overlay is read-only")
}

func (l *overlayLog) name() string { return "overlay" }

func (l *overlayLog) unmapped() bool { return false }

func (l *overlayLog) reset() error {
	l.seen = map[string]upperState{}
	since := fs.Now().Add(-racyWindow)
	return walk(l.ctx, l.upper, rootPath, func(n *node) (err error) {
		l.seen[n.path], _, err = stateOf(n, &upperState{}, since)
		return err
	})
}

// stateOf looks at an entry; same says that it is as it was. A directory that is not costs one more look. What has changed since
// that time may change again within the tick.
func stateOf(n *node, old *upperState, since fs.Time) (s upperState, same bool, err error) {
	s = upperState{ino: n.st.Ino, ctime: n.st.Ctime, size: n.st.Size}
	if n.st.IsDir() {
		s.handle = old.handle
	}
	same = s == *old // which is not racy then
	s.racy = !s.ctime.Before(since)
	if same || !n.st.IsDir() {
		return s, same, nil
	}
	if s.handle, err = n.dir.Handle(n.name); errors.Is(err, syscall.EOPNOTSUPP) {
		s.handle, err = "", nil // and is then a new one as soon as it changes
	}
	return s, false, err
}

func (l *overlayLog) take() *changes {
	c := &changes{paths: map[string]changeFlag{}}
	now := make(map[string]upperState, len(l.seen))
	since := fs.Now().Add(-racyWindow)
	err := walk(l.ctx, l.upper, rootPath, func(n *node) error {
		old := l.seen[n.path]
		s, same, err := stateOf(n, &old, since)
		if err != nil {
			return err
		}
		now[n.path] = s
		if same {
			return nil
		}
		flag, err := dirFlags(n, s.handle != "" && old.handle == s.handle)
		if err != nil {
			return err
		}
		c.mark(n.path, flag)
		return nil
	})
	if err != nil {
		return &changes{full: fmt.Sprintf("the upper directory cannot be read: %v", err)}
	}
	for path := range l.seen {
		if _, ok := now[path]; !ok {
			c.mark(path, 0)
		}
	}
	l.seen = now
	return c
}

// dirFlags looks at a directory in the upper. A new one may be opaque, which hides what the lower has at its place, or
// redirected (rename of a directory), which shows what the lower has elsewhere instead; neither leaves a trace per file.
func dirFlags(n *node, known bool) (changeFlag, error) {
	if !n.st.IsDir() || n.path == rootPath || known {
		return 0, nil
	}
	for _, of := range []string{"trusted.overlay.", "user.overlay."} {
		for _, attr := range []string{"opaque", "redirect"} {
			v, err := n.dir.Xattr(n.name, of+attr)
			if errors.Is(err, syscall.ENODATA) || errors.Is(err, syscall.EOPNOTSUPP) {
				continue
			}
			if err != nil {
				return 0, err
			}
			if attr == "redirect" || string(v) == "y" {
				return changeTree | changeFresh, nil
			}
		}
	}
	return changeTree, nil
}

func (l *overlayLog) pause() func() { return func() {} }

func (l *overlayLog) close() error { return l.upper.Close() }
