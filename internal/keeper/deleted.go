package keeper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/internal/sys/fs"
	"github.com/livemigrate/migrate/internal/sys/hole"
	"github.com/livemigrate/migrate/internal/unlinked"
	"github.com/livemigrate/migrate/internal/wire"
)

// leastDeleted is from where on a deleted file travels by itself. CRIU copies a smaller one in a millisecond or two.
const leastDeleted = 1 << 20

// deletedFiles are the files of the container that are open and have no name, as a tree of the handover.
type deletedFiles struct {
	container *container
	source    *unlinked.Source
	passed    time.Time
}

// findDeleted takes hold of those that can travel ahead: on the rootfs, or on a directory that is carried. Where that can't be
// told CRIU copies all of them, as it does those in other places.
func (c *container) findDeleted() error {
	if err := c.leaveDeleted(); err != nil {
		return err
	}
	if len(c.trees) >= wire.MaxTrees { // they would be one more
		c.log.Info("deleted files are left to CRIU: there are as many directories as can travel")
		return nil
	}
	roots, err := c.mountRoots()
	if err != nil {
		return err
	}
	if !c.Plan().Private(specs.MountNamespace) { // its mounts have no numbers in the images
		return nil
	}
	source, err := unlinked.Open(&unlinked.SourceOptions{
		Init: c.InitPid(), Processes: c.Processes, Roots: roots, Least: leastDeleted, Log: c.log,
	})
	if err != nil {
		c.log.Warn("deleted files are left to CRIU", "error", err)
		return nil
	}
	if len(source.Inodes()) == 0 {
		return source.Close()
	}
	c.deleted = &deletedFiles{container: c, source: source}
	return nil
}

// mountRoots are the directories that travel as roots of mounts: that of the container, then a place for each of volumes.
func (c *container) mountRoots() ([]fs.Stat, error) {
	root, err := fs.StatPath(c.Plan().Rootfs)
	if err != nil {
		return nil, fmt.Errorf("look at rootfs: %w", err)
	}
	roots := []fs.Stat{root}
	for _, b := range c.binds {
		switch {
		case b.where == nil:
		case b.stat.IsDir():
			roots = append(roots, *b.stat)
		default:
			roots = append(roots, fs.Stat{}) // a single file: nothing has a place in it
		}
	}
	return roots, nil
}

func (c *container) leaveDeleted() error {
	if c.deleted == nil {
		return nil
	}
	err := c.deleted.source.Close()
	c.deleted = nil
	return err
}

// ahead are their inodes, for the preflight, and the bytes of those that somebody can write to.
func (c *container) ahead() (inodes map[[2]uint64]uint64, reread uint64) {
	if c.deleted == nil {
		return nil, 0
	}
	return c.deleted.source.Inodes(), c.deleted.source.Writable()
}

// externalFiles tells CRIU to leave them to us.
func (c *container) externalFiles() []string {
	if c.deleted == nil {
		return nil
	}
	var all []string
	for _, p := range c.deleted.source.Carried() {
		all = append(all, criu.ExternalFile(p.Mount, p.Inode))
	}
	return all
}

// Pass brings the peer's files up to date while the container runs.
func (d *deletedFiles) Pass(ctx context.Context, ch handover.Channel) (uint64, error) {
	d.passed = time.Time{} // what failed has to be done again
	began := time.Now()
	stats, err := d.source.Pass(ctx, ch)
	d.container.log.Info("deleted files sent", "files", stats.Files, "read", stats.Read, "bytes", stats.Sent, "took", stats.Elapsed)
	if err != nil {
		return uint64(stats.Sent), err
	}
	d.passed = began
	refused := d.source.Refused()
	for _, path := range slices.Sorted(maps.Keys(refused)) {
		if bytes := refused[path]; bytes > preflight.MostDeleted {
			return uint64(stats.Sent), fmt.Errorf("%w: the file system there makes no files without a name, and CRIU saves only 4 GiB of the deleted file %s, "+
				"which has %d: let it be closed, or given a name", wire.ErrIncompatible, path, bytes)
		}
		d.container.log.Info("the peer's file system makes no files without a name: CRIU copies one", "path", path)
	}
	return uint64(stats.Sent), nil
}

// secondLook is how long after a pass another one is worth its time: the last difference is found in any case.
const secondLook = 2 * time.Second

// Again: what has changed for a while is sent before the stop.
func (d *deletedFiles) Again() bool { return time.Since(d.passed) > secondLook }

// Delta sends the rest.
func (d *deletedFiles) Delta(ctx context.Context, ch handover.Channel) (uint64, error) {
	stats, err := d.source.Delta(ctx, ch)
	d.container.log.Info("deleted files in the freeze", "files", stats.Files, "unread", stats.Skipped, "read", stats.Read, "bytes", stats.Sent, "took", stats.Elapsed)
	return uint64(stats.Sent), err
}

// syncDeleted serves one pass over them at the peer.
func (p *place) syncDeleted(ctx context.Context, ch handover.Channel) (uint64, error) {
	if p.deleted == nil {
		ledger, err := p.host.order.ledger(p.hello.GetMove())
		if err != nil {
			return 0, err
		}
		p.deleted = unlinked.NewTarget(&unlinked.TargetOptions{Top: p.bundle, Root: p.mountRoot, Ledger: ledger})
	}
	p.deleted.Limit(p.host.order.Limits.files(p.came).Bytes)
	came, err := p.deleted.Serve(ctx, ch)
	p.came += came
	if err != nil && hole.NoRoom(err) {
		p.full = true
		err = fmt.Errorf("%w: %w", wire.ErrNoSpace, err)
	}
	return uint64(came), err
}

// mountRoot is the directory of the source's mountRoots in the bundle. All are reached by one mount, so that a file may have
// names in several.
func (p *place) mountRoot(index int) (string, error) {
	path := p.treePath(0)
	if index > 0 {
		if index > len(p.identity.Volumes) {
			return "", fmt.Errorf("%w: a deleted file on mount %d of %d", wire.ErrMalformed, index, len(p.identity.Volumes))
		}
		v := p.identity.Volumes[index-1]
		path = filepath.Join(p.treePath(v.Tree), v.Path)
	}
	return filepath.Rel(p.bundle, path)
}

// errTwice: a deleted file would become two.
var errTwice = errors.New("a deleted file is open through a mount that was not known when the container stopped; push it again")

// nameDeleted gives the files names for the time of the restore, and tells CRIU of them.
func (p *place) nameDeleted() error {
	external, err := image.ExternalFiles(p.images)
	if err != nil || len(external) == 0 {
		return err
	}
	if p.deleted == nil {
		return fmt.Errorf("%w: external files that have not come", wire.ErrMalformed)
	}
	ghosts, err := image.Ghosts(p.images)
	if err != nil {
		return err
	}
	var named []image.Relinked
	for _, e := range external {
		n, err := p.deleted.Name(e.Mount, e.Inode)
		switch {
		case err != nil:
			return err
		case n == nil:
			return fmt.Errorf("%w: an external file that has not come", wire.ErrMalformed)
		case ghosts[[2]uint64{n.Device, n.Inode}]:
			return errTwice
		}
		named = append(named, image.Relinked{ExternalFile: e, Path: n.Path, Link: n.Now})
	}
	if err := image.Relink(p.images, named); err != nil {
		return err
	}
	return p.deleted.Settle() // none may be open for writing: one of them may be a program that runs
}

func (p *place) closeDeleted() error {
	if p.deleted == nil {
		return nil
	}
	err := p.deleted.Close()
	p.deleted = nil
	return err
}
