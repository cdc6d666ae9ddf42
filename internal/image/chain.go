package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/livemigrate/migrate/internal/memory"
)

// digestParent is the digest of the manifest of the set that link leads to, or "" when that has none.
func digestParent(dir, link string) (string, error) {
	if link == "" {
		return "", nil
	}
	_, digest, err := digestWhole(filepath.Join(dir, link, manifestName))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return digest, err
}

// checkParent: what is in the parent's directory must be the set that this one was built on.
func (s *Set) checkParent(link string) error {
	if s.Manifest == nil || s.Manifest.ParentManifest == "" {
		return nil // made by others, or by a program that did not note it
	}
	digest, err := digestParent(s.Dir, link)
	if err == nil && digest != s.Manifest.ParentManifest {
		err = fmt.Errorf("parent %q is not the set that %q was built on, but one that was made there later: %w", link, s.Dir, ErrDamaged)
	}
	return err
}

// checkBelow wants every page that a map of the set leaves to the sets below it to be there, with bytes behind it. CRIU would ask an
// empty file for it again and again.
func (s *Set) checkBelow() error {
	names, err := list(s.Dir)
	if err != nil {
		return err
	}
	u := &Unpacking{set: s}
	sources := map[string]int{}
	for _, name := range names {
		if !strings.HasPrefix(name, "pagemap-") {
			continue
		}
		chain, err := u.chain(name, sources)
		if err != nil {
			return err
		}
		if err := u.checkRuns(name, chain); err != nil {
			return err
		}
	}
	return nil
}

func (u *Unpacking) checkRuns(name string, chain []*level) error {
	for _, run := range chain[0].m.Runs {
		if run.Flags&PageParent == 0 {
			continue
		}
		short := false
		err := trace(chain, run.Range, func(part memory.Range, slot uint64, file int) {
			short = short || int64(slot+part.Pages)*memory.PageSize > u.sources[file].size
		})
		switch {
		case errors.Is(err, ErrElsewhere): // of memory that is fetched from another host
		case errors.Is(err, ErrUnresolved) || err == nil && short:
			return damaged(name, "not all of %d pages at %#x are in the parents that should have them", run.Pages, run.Start)
		case err != nil:
			return err
		}
	}
	return nil
}

// BuiltOn lists the sets beside dir whose parent is in dir.
func BuiltOn(dir string) ([]string, error) {
	goal, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	beside := filepath.Dir(filepath.Clean(dir))
	entries, err := os.ReadDir(beside)
	if err != nil {
		return nil, err
	}
	var sets []string
	for _, entry := range entries {
		path := filepath.Join(beside, entry.Name())
		// A link that leads nowhere, or whatever else it is called, is no set on this one.
		if info, err := os.Stat(filepath.Join(path, parentName)); err == nil && os.SameFile(info, goal) {
			sets = append(sets, path)
		}
	}
	return sets, nil
}
