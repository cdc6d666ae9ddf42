package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/image"
)

// openStage has a set taken beside the older one in ImagesDir, whose place it has when it is whole: o says so meanwhile. Pages that go
// to a page server are not ours to keep apart.
func (o *Options) openStage(preDump bool) (err error) {
	if o.NoManifest || o.PageServer != "" || o.ImagesDir == "" {
		return nil
	}
	if o.Client == nil {
		if _, err := criu.Locate(o.CRIU); err != nil {
			return err
		}
	}
	if err := o.checkParent(); err != nil {
		return err
	}
	if err := o.checkDirectory(); err != nil {
		return err
	}
	if err := o.checkChildren(preDump); err != nil {
		return err
	}
	target := o.ImagesDir
	if o.stage, err = image.OpenStage(target); err != nil {
		return err
	}
	o.replaces = image.Holds(target)
	o.ImagesDir = o.stage.Dir
	if o.WorkDir == "" {
		o.WorkDir = target
	}
	if o.ParentPath != "" && !filepath.IsAbs(o.ParentPath) { // such a one is refused
		o.ParentPath = o.stage.Parent(o.ParentPath)
	}
	return nil
}

// closeStage removes what is left of a set that failed. CRIU's log stays.
func (o *Options) closeStage() error {
	if o.stage == nil {
		return nil
	}
	return o.stage.Close()
}

// checkParent: what is built on must not be built on what is replaced.
func (o *Options) checkParent() error {
	if o.ParentPath == "" || filepath.IsAbs(o.ParentPath) {
		return nil // refused later
	}
	loop, err := image.LeadsTo(filepath.Join(o.ImagesDir, o.ParentPath), o.ImagesDir)
	if err == nil && loop {
		err = fmt.Errorf("it needs what is in %s, which this checkpoint would replace: use another --image-path", o.ImagesDir)
	}
	if err != nil {
		return fmt.Errorf("invalid --parent-path: %w", err)
	}
	return nil
}

// checkChildren: what is built on the set that is replaced could not be restored any more. Pre-dumps are replaced all the time, and
// what was built on the last one next.
func (o *Options) checkChildren(preDump bool) error {
	if !image.Holds(o.ImagesDir) {
		return nil
	}
	children, err := image.BuiltOn(o.ImagesDir)
	switch {
	case err != nil:
		return fmt.Errorf("look for checkpoints that need the older one: %w", err)
	case len(children) > 0 && preDump:
		o.log().Warn("what was built on the older pre-dump cannot be restored any more", "images", o.ImagesDir, "built", children)
	case len(children) > 0:
		return fmt.Errorf("%w: %s was built on what is in %s: remove it first, or use another --image-path", ErrNeeded, children[0], o.ImagesDir)
	}
	return nil
}

// checkDirectory: memory holds keys and passwords. The files are closed to others, whatever their directory is, whose mode is its
// owner's affair: a tmpfs that was just mounted is everybody's.
func (o *Options) checkDirectory() error {
	info, err := os.Stat(o.ImagesDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at image directory: %w", err)
	}
	const everybody = 0o002
	if info.Mode().Perm()&everybody != 0 {
		o.log().Warn("everybody may put files into the image directory", "images", o.ImagesDir, "mode", info.Mode().String())
	}
	return nil
}
