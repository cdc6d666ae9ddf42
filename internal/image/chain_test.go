package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/memory"
)

// chained is a set on another, both with their manifests.
func chained(t *testing.T) (parent, child string) {
	t.Helper()
	top := t.TempDir()
	parent, child = filepath.Join(top, "1"), filepath.Join(top, "2")
	where := map[int][]memory.Range{7: book{}.ranges(16, 2)}
	put(t, parent, "", map[int]book{7: {16: 1, 17: 2}}, where)
	manifest(t, parent)
	put(t, child, "../1", map[int]book{7: {16: 1, 17: 3}}, where)
	manifest(t, child)
	return parent, child
}

func TestParentThatWasMadeAnewIsRefused(t *testing.T) {
	parent, child := chained(t)
	if err := CheckBelow(child); err != nil {
		t.Fatal(err)
	}
	if built, err := BuiltOn(parent); err != nil || len(built) != 1 || built[0] != child {
		t.Errorf("built on the parent: %v, %v", built, err)
	}
	text, err := os.ReadFile(filepath.Join(child, manifestName))
	if err != nil {
		t.Fatal(err)
	}
	manifest(t, child) // the same again
	if again, err := os.ReadFile(filepath.Join(child, manifestName)); err != nil || string(again) != string(text) {
		t.Errorf("%s, %v", again, err)
	}
	if err := os.RemoveAll(parent); err != nil {
		t.Fatal(err)
	}
	put(t, parent, "", map[int]book{7: {16: 9, 17: 9}}, map[int][]memory.Range{7: book{}.ranges(16, 2)})
	for _, bare := range []bool{true, false} {
		if !bare {
			manifest(t, parent)
		}
		if err := CheckBelow(child); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "made there later") {
			t.Errorf("without a manifest %v: %v", bare, err)
		}
	}
	// The version says that the digest is there, and a digest is one.
	m, err := parseManifest(text)
	if err != nil || m.Version != VersionBound {
		t.Fatalf("%+v, %v", m, err)
	}
	for _, bad := range []string{strings.Replace(string(text), `"version": 3`, `"version": 1`, 1), strings.Replace(string(text), m.ParentManifest, "abc", 1)} {
		if _, err := parseManifest([]byte(bad)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%v", err)
		}
	}
}

// Manifests of before say nothing of the parent's, and sets of others have none at all.
func TestParentOfOldAndForeignSetsIsTaken(t *testing.T) {
	parent, child := chained(t)
	m, err := readManifest(child)
	if err != nil {
		t.Fatal(err)
	}
	m.Version, m.ParentManifest = Version, ""
	if err := m.save(child); err != nil {
		t.Fatal(err)
	}
	if err := CheckBelow(child); err != nil {
		t.Errorf("of before: %v", err)
	}
	if err := os.Remove(filepath.Join(child, manifestName)); err != nil {
		t.Fatal(err)
	}
	if err := CheckBelow(child); err != nil {
		t.Errorf("without a manifest: %v", err)
	}
	if err := os.Remove(filepath.Join(parent, manifestName)); err != nil {
		t.Fatal(err)
	}
	manifest(t, child)
	if m, err := readManifest(child); err != nil || m.Version != Version || CheckBelow(child) != nil {
		t.Errorf("ours on one without: %+v, %v", m, err)
	}
}

// CRIU reads for ever what is not there.
func TestParentWithoutThePagesIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(parent string) error{
		"empty":  func(parent string) error { return errors.Join(os.RemoveAll(parent), os.Mkdir(parent, 0o700)) },
		"no map": func(parent string) error { return os.Remove(filepath.Join(parent, "pagemap-7.img")) },
		"no pages": func(parent string) error {
			return errors.Join(os.Remove(filepath.Join(parent, "pagemap-7.img")), (&PageMap{VPid: 7, PagesID: 9}).Write(parent))
		},
		"another's pages": func(parent string) error {
			m := &PageMap{VPid: 7, PagesID: 2}
			m.add(memory.Range{Start: 18 * memory.PageSize, Pages: 2}, PagePresent)
			return m.Write(parent)
		},
		"whole": func(string) error { return nil },
	} {
		parent, child := chained(t)
		err := errors.Join(os.Remove(filepath.Join(parent, manifestName)), os.Remove(filepath.Join(child, manifestName)), spoil(parent))
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckBelow(child); name == "whole" && err != nil || name != "whole" && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := open(parent, false); err != nil {
			t.Errorf("%s by itself: %v", name, err)
		}
	}
}
