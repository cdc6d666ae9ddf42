package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/runtime"
)

// tenant says whose files a bundle holds, in a file of the bundle. A bundle without one holds what its user has put there.
type tenant struct {
	Version   int       `json:"version"`
	Container string    `json:"container"`
	Created   time.Time `json:"created"` // when the container was, which it keeps on its way from host to host
	Stay      stay      `json:"stay"`
}

const (
	tenantVersion = 1
	tenantBytes   = 4 << 10 // far above one
)

// stay is what became of the container there.
type stay string

const (
	livesHere stay = "here" // it runs, or has ended: its files may be the only ones
	neverRan  stay = "came" // its files have come, but it runs where they came from
	movedOn   stay = "left" // it has moved away with its files
)

// errNoTenant: a bundle bears no mark, or none that can be read.
var errNoTenant = errors.New("no move has brought what is in it")

func readTenant(bundle string) (*tenant, error) {
	file, err := os.OpenFile(filepath.Join(bundle, runtime.TenantFile), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoTenant
	}
	if err != nil {
		return nil, fmt.Errorf("look whose bundle it is: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("look whose bundle it is: %w", err)
	}
	t := new(tenant)
	if !info.Mode().IsRegular() || info.Size() > tenantBytes || json.NewDecoder(file).Decode(t) != nil || t.Version != tenantVersion {
		return nil, errNoTenant
	}
	return t, nil
}

func (t *tenant) write(bundle string) error {
	t.Version = tenantVersion
	content, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("note whose bundle it is: %w", err)
	}
	path := filepath.Join(bundle, runtime.TenantFile)
	if err := writeSynced(path+".new", append(content, '\n')); err != nil {
		return errors.Join(fmt.Errorf("note whose bundle it is: %w", err), removeIfThere(path+".new"))
	}
	return os.Rename(path+".new", path)
}

// writeSynced: a power cut must not leave a mark that nobody can read, which would keep the container itself out.
func writeSynced(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Sync(), file.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// same tells whether it is this container, and not another one that has got its name since.
func (t *tenant) same(id string, created time.Time) bool {
	return t.Container == id && t.Created.Equal(created)
}

// vacancy tells what keeps a container out of its directory here, and what of that has to be set aside for it, because it may be
// the only one of its kind: volumes of another container that ended there, and whatever no move has brought. What the same
// container has left there, or any that has its files elsewhere, is what the move is about to bring; and the root of a container
// goes with it, as with every engine.
func (p *place) vacancy() (preflight.Findings, error) {
	p.before, p.aside = nil, nil
	lodgers, err := p.lodgers()
	if err != nil {
		return nil, err
	}
	if len(lodgers) > 0 {
		return preflight.Misfit(preflight.Blocker, preflight.BundleTaken, "let serve use another directory (--bundles), or delete that container there",
			"container %s uses what is in %s, where the files would go", lodgers[0], p.bundle), nil
	}
	t, err := readTenant(p.bundle)
	switch {
	case errors.Is(err, errNoTenant):
		return p.keep(p.bundle, "no move has brought what is in it")
	case err != nil:
		return nil, err
	case t.Stay == livesHere && !t.same(p.hello.GetContainer(), p.identity.Created):
		return p.keep(filepath.Join(p.bundle, volumesDir),
			fmt.Sprintf("it is of another container %s, of %s", t.Container, t.Created.Format(time.RFC3339)))
	}
	p.before = t
	return nil, nil
}

// aside is a directory that is in the way, and where it is to be kept.
type aside struct{ from, to string }

// keep has the files in a directory set aside, if there are any.
func (p *place) keep(dir, why string) (preflight.Findings, error) {
	if held, err := holdsFiles(dir); err != nil || !held {
		return nil, err
	}
	beside := p.bundle + "." + time.Now().UTC().Format("20060102T150405.000Z")
	p.aside = &aside{from: dir, to: filepath.Join(beside, strings.TrimPrefix(dir, p.bundle))}
	return preflight.Misfit(preflight.Warning, preflight.BundleTaken, "remove it there when nobody needs it",
		"%s, where its files go, is there already, and %s: it is kept as %s", dir, why, p.aside.to), nil
}

// setAside does that.
func (p *place) setAside() error {
	if p.aside == nil {
		return nil
	}
	err := os.MkdirAll(filepath.Dir(p.aside.to), 0o700)
	if err == nil {
		err = os.Rename(p.aside.from, p.aside.to)
	}
	if err != nil {
		return fmt.Errorf("keep %s, which is in the way (move it away there): %w", p.aside.from, err)
	}
	return nil
}

// stays tells whether a tree's directory is not in what is set aside.
func (p *place) stays(tree int) bool {
	return p.aside == nil || !isBeneath(p.treePath(tree), p.aside.from)
}

// lodgers are other containers of this host with their bundle, their root or a bind mount in the directory.
func (p *place) lodgers() ([]string, error) {
	if _, err := os.Stat(p.bundle); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	top, err := filepath.EvalSymlinks(p.bundle)
	if err != nil {
		return nil, fmt.Errorf("look at the bundle: %w", err)
	}
	all, err := p.runtime.List()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, c := range all {
		plan := c.Plan()
		uses := isWithin(plan.Bundle, top) || isWithin(plan.Rootfs, top)
		for _, m := range plan.Spec.Mounts { // by their names alone: what they lead to may be slow, or gone
			source := absolute(m.Source, plan.Bundle)
			uses = uses || preflight.IsBind(m) && (isBeneath(source, top) || isBeneath(source, p.bundle))
		}
		if uses && c.ID() != p.hello.GetContainer() { // whose id is looked at by itself
			ids = append(ids, c.ID())
		}
	}
	return ids, nil
}

// errHeld ends a walk.
var errHeld = errors.New("held")

// holdsFiles tells an empty place, which may have been made for the container, from one with something in it.
func holdsFiles(dir string) (bool, error) {
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			err = errHeld
		}
		return err
	})
	if errors.Is(err, errHeld) {
		return true, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look at the bundle: %w", err)
	}
	return false, nil
}

// moveIn makes the bundle the container's. What was there before says what it is again if the move comes to nothing.
func (p *place) moveIn() error {
	t := &tenant{Container: p.hello.GetContainer(), Created: p.identity.Created, Stay: livesHere}
	return t.write(p.bundle)
}

// moveOut is for a container that has not come.
func (p *place) moveOut() {
	t := &tenant{Container: p.hello.GetContainer(), Created: p.identity.Created, Stay: neverRan}
	if p.before != nil {
		t.Stay = p.before.Stay
	}
	if err := t.write(p.bundle); err != nil { // only the container itself may come again
		p.host.log.Warn("the bundle is taken for one that the container lived in", "error", err)
	}
}

// neverLived tells whether no container has ever run in the bundle: what is in it has come from where it still is.
func (p *place) neverLived() bool { return p.fresh || p.before != nil && p.before.Stay == neverRan }

// settle notes in a container's bundle what becomes of it here, so that it can come back. A bundle that no move would use needs none.
func (c *container) settle(s stay) {
	plan := c.Plan()
	if filepath.Base(plan.Bundle) != c.ID() || filepath.Clean(plan.Rootfs) == filepath.Clean(plan.Bundle) {
		return
	}
	created := c.State().Created
	if t, err := readTenant(plan.Bundle); err == nil && t.same(c.ID(), created) && t.Stay == s {
		return
	}
	t := &tenant{Container: c.ID(), Created: created, Stay: s}
	if err := t.write(plan.Bundle); err != nil {
		c.log.Warn("the container may not be let back into its bundle", "error", err)
	}
}
