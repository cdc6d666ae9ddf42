package image

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// finish ends a Publish that was cut off.
func finish(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, readyName)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	lock, err := lockSet(dir, 0)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := promote(dir); err != nil {
		return fmt.Errorf("end a checkpoint that was cut off: %w", err)
	}
	return nil
}

// promote gives dir the set that is ready, if one is. dir is locked. It may have been begun before: what the manifest names is in
// dir already when it is not with the ready files.
func promote(dir string) error {
	ready := filepath.Join(dir, readyName)
	entries, err := os.ReadDir(ready)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	m, err := readManifest(ready)
	if err != nil {
		return err
	}
	if m != nil { // it goes last
		names := map[string]bool{}
		for _, entry := range entries {
			names[entry.Name()] = true
		}
		if err := m.replace(dir, names); err != nil {
			return err
		}
		if err := m.moveIn(dir, names); err != nil {
			return err
		}
	}
	return errors.Join(os.Remove(ready), syncFile(dir))
}

// replace removes what is of the older set only.
func (m *Manifest) replace(dir string, ready map[string]bool) error {
	old, err := list(dir)
	if err != nil {
		return err
	}
	var gone []string
	if ready[inventoryName] {
		gone = append(gone, inventoryName) // first: without it no runtime takes the two together for one
	}
	known := m.names()
	for _, name := range old {
		if !known[name] && name != inventoryName {
			gone = append(gone, name)
		}
	}
	if m.Parent == "" {
		gone = append(gone, parentName)
	}
	for _, name := range gone {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// moveIn gives dir the ready files.
func (m *Manifest) moveIn(dir string, ready map[string]bool) error {
	for _, name := range inOrder(ready) {
		if err := os.Rename(filepath.Join(dir, readyName, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// inOrder has those last by which a set is known to be whole.
func inOrder(names map[string]bool) []string {
	rank := map[string]int{inventoryName: 1, manifestName: 2}
	return slices.SortedFunc(maps.Keys(names), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank[a], rank[b]), cmp.Compare(a, b))
	})
}

// names are those of the set's files as they lie in its directory.
func (m *Manifest) names() map[string]bool {
	names := map[string]bool{}
	for _, f := range m.Metadata {
		names[f.Name] = true
	}
	for i := range m.Pages {
		name, _ := m.Pages[i].stored()
		names[name] = true
	}
	return names
}

// Holds tells whether files of a set are in dir.
func Holds(dir string) bool {
	names, err := list(dir)
	return err == nil && len(names) > 0
}

// LeadsTo tells whether the chain of sets that begins at dir leads through target.
func LeadsTo(dir, target string) (bool, error) {
	goal, err := os.Stat(target)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for range maxParents {
		info, err := os.Stat(dir)
		if err != nil || os.SameFile(info, goal) {
			return err == nil, err
		}
		link, err := parentOf(dir)
		if err != nil || link == "" {
			return false, err
		}
		dir = filepath.Join(dir, link)
	}
	return false, nil
}
