package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/internal/sys/fs"
	"github.com/livemigrate/migrate/runtime"
)

func (p *place) makeBundle() error {
	if err := p.setAside(); err != nil {
		return err
	}
	_, err := os.Stat(p.bundle)
	p.fresh = errors.Is(err, os.ErrNotExist)
	if err := os.MkdirAll(filepath.Dir(p.bundle), 0o755); err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	if err := os.Mkdir(p.bundle, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make bundle: %w", err)
	}
	return errors.Join(p.closeBundle(nil), p.moveIn())
}

// closeBundle keeps the host's users out of the bundle: what has the set-user-ID bit in a container gives its rights to whoever
// gets to it from outside. Only the root of the plan's user namespace must get through to its rootfs. nil: nobody.
func (p *place) closeBundle(plan *runtime.Plan) error {
	mode, group := os.FileMode(0o700), 0
	if plan != nil && hasUserNamespace(plan.Spec) {
		_, gid, err := plan.HostRoot()
		if err != nil {
			return err
		}
		mode, group = 0o710, gid
	}
	if group != 0 {
		if err := os.Chown(p.bundle, -1, group); err != nil {
			return fmt.Errorf("close the bundle to others: %w", err)
		}
	}
	if err := os.Chmod(p.bundle, mode); err != nil {
		return fmt.Errorf("close the bundle to others: %w", err)
	}
	return nil
}

// volumesDir holds the trees of a bundle besides its root.
const volumesDir = "volumes"

func (p *place) treePath(index int) string {
	if index == 0 {
		return filepath.Join(p.bundle, "rootfs")
	}
	return filepath.Join(p.bundle, volumesDir, strconv.Itoa(index))
}

// findVolumes looks whether each volume is where CRIU will bind it from. In a tree that holds several, what the container has
// made of the way to one of them may be a link, which would lead out of the tree.
func (p *place) findVolumes() error {
	for _, v := range p.identity.Volumes {
		if err := findVolume(p.treePath(v.Tree), v.Path); err != nil {
			return fmt.Errorf("find the volume for %s: %w", p.spec.Mounts[v.Mount].Destination, err)
		}
	}
	return nil
}

func findVolume(tree, path string) error {
	root, err := fs.OpenDir(tree)
	if err != nil || path == "" {
		return errors.Join(err, root.Close())
	}
	defer root.Close()
	parent, err := root.Beneath(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer parent.Close()
	st, err := parent.Stat(filepath.Base(path))
	if err == nil && !st.IsDir() && !st.IsRegular() {
		err = fmt.Errorf("%s is a %s", path, preflight.Noun(st.Mode))
	}
	return err
}

func (p *place) writeConfig() error {
	content, err := json.MarshalIndent(p.spec, "", "\t")
	if err != nil {
		return fmt.Errorf("write config.json: %w", err)
	}
	path := filepath.Join(p.bundle, runtime.ConfigFile)
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		return fmt.Errorf("write config.json: %w", err)
	}
	return os.Rename(path+".new", path)
}
