// Package image is a checkpoint on disk: a directory of CRIU's files, descriptors.json (where the container's stdio
// pointed), and manifest.json (what all of it must be). docs/image-format.md describes it.
//
//  1. Write makes the manifest once CRIU has written its files.
//  2. Open reads a set for a restore. With a manifest every metadata file is verified whole and every page file's size;
//     without one (runc and podman write none) CRIU's magics, framing and references are checked.
//  3. VerifyPages compares the page files chunk by chunk while CRIU reads them already: a wrong page is found before the
//     restored tree may run.
//
// The page files of a set may be compressed, which CRIU cannot read: Unpack makes one for it.
//
// A set may have parents, by CRIU's symbolic link "parent": pages that did not change since an earlier pre-dump are there.
package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

var (
	// ErrNoCheckpoint: the directory holds no complete checkpoint. CRIU writes inventory.img last.
	ErrNoCheckpoint = errors.New("no checkpoint")
	// ErrDamaged: a file is missing, cut, altered or not of this checkpoint. The text names it. Take it from a copy.
	ErrDamaged = errors.New("checkpoint damaged: take the file from a copy of it, or restore an older one")
	// ErrVersion: the manifest was written by a newer program. Restore with that one.
	ErrVersion = errors.New("unknown manifest version")
)

// maxParents bounds the chain of pre-dumps below a set, so that links in a circle end.
const maxParents = 256

// Set is an image directory that Open has checked.
type Set struct {
	Dir      string
	Manifest *Manifest // nil: not written by us
	Parents  []*Set    // nearest first
}

// Open checks the set in dir, and those below it, except for the content of page files (see VerifyPages).
func Open(dir string) (*Set, error) {
	set, err := openChain(dir, true)
	if err != nil {
		return nil, fmt.Errorf("open image set %q: %w", dir, err)
	}
	return set, nil
}

// openChain opens a set and those below it. whole: it is a dump, not a pre-dump as those.
func openChain(dir string, whole bool) (*Set, error) {
	set, err := open(dir, whole)
	if err != nil {
		return nil, err
	}
	for below := set; ; {
		link, err := parentOf(below.Dir)
		if err != nil {
			return nil, err
		}
		if link == "" {
			if len(set.Parents) > 0 {
				err = set.checkBelow()
			}
			return set, err
		}
		if len(set.Parents) == maxParents {
			return nil, fmt.Errorf("more than %d parents: %w", maxParents, ErrDamaged)
		}
		if err := below.checkParent(link); err != nil {
			return nil, err
		}
		parent := filepath.Join(below.Dir, link)
		if below, err = open(parent, false); err != nil {
			return nil, fmt.Errorf("parent %q: %w", parent, err)
		}
		set.Parents = append(set.Parents, below)
	}
}

// open checks one directory. whole: it is a dump, not one of the pre-dumps below it.
func open(dir string, whole bool) (*Set, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("not a directory: %w", ErrNoCheckpoint)
	}
	if err := finish(dir); err != nil {
		return nil, err
	}
	manifest, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	set := &Set{Dir: dir, Manifest: manifest}
	if manifest != nil {
		if err := set.verifyFiles(); err != nil {
			return nil, err
		}
		return set, nil
	}
	if _, err := os.Stat(filepath.Join(dir, inventoryName)); errors.Is(err, os.ErrNotExist) && whole {
		return nil, fmt.Errorf("%s is missing: %w", inventoryName, ErrNoCheckpoint)
	}
	if err := checkCRIU(dir, whole); err != nil {
		return nil, err
	}
	return set, nil
}

// parentOf is where CRIU's link leads, relative to dir, or "".
func parentOf(dir string) (string, error) {
	link, err := os.Readlink(filepath.Join(dir, parentName))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("%s is no symbolic link: %w", parentName, ErrDamaged)
	case filepath.IsAbs(link):
		return "", fmt.Errorf("%s leads to the absolute path %q: %w", parentName, link, ErrDamaged)
	}
	return link, nil
}

// HasNetwork tells whether CRIU saved the content of network namespaces. runc never lets it (--empty-ns).
func (s *Set) HasNetwork() bool {
	found, _ := filepath.Glob(filepath.Join(s.Dir, "netdev-*.img"))
	return len(found) > 0
}

func damaged(name, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", name, fmt.Sprintf(format, args...), ErrDamaged)
}
