package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// older is a whole set with a file that the newer one has not.
func older(t *testing.T) string {
	t.Helper()
	dir := checkpoint(t)
	write(t, dir, "fs-7.img", file(0x51403912))
	write(t, dir, "notes.txt", []byte("somebody's"))
	if err := os.Symlink("../below", filepath.Join(dir, parentName)); err != nil {
		t.Fatal(err)
	}
	manifest(t, dir)
	return dir
}

// newer writes another set into a stage for dir.
func newer(t *testing.T, dir string) *Stage {
	t.Helper()
	s, err := OpenStage(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	from := checkpoint(t)
	write(t, from, "core-7.img", file(0x55053847, message(1, 1), message(1, 2)))
	names, err := list(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := copyFile(filepath.Join(s.Dir, name), filepath.Join(from, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Write(t.Context(), Origin{Created: time.Unix(2, 0), CRIU: "newer"}); err != nil {
		t.Fatal(err)
	}
	return s
}

func entries(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

const newerEntries = "core-7.img core-8.img descriptors.json dump.log inventory.img manifest.json notes.txt pagemap-7.img pages-1.img pstree.img"

func isNewer(t *testing.T, dir string) {
	t.Helper()
	set, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := set.VerifyPages(t.Context()); err != nil || set.Manifest.CRIU != "newer" {
		t.Errorf("%+v, %v", set.Manifest, err)
	}
	if got := entries(t, dir); got != newerEntries {
		t.Errorf("in the directory: %s", got)
	}
}

func TestNewSetReplacesTheOldOneWhenItIsWhole(t *testing.T) {
	dir := older(t)
	before, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	had := entries(t, dir)
	s := newer(t, dir)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Join(s.Dir, "core-7.img"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStage(dir); !errors.Is(err, ErrBusy) {
		t.Errorf("two at once: %v", err)
	}
	if got := entries(t, dir); got != stageName+" "+had {
		t.Errorf("before it is published: %s", got)
	}
	if err := errors.Join(s.Publish(), s.Close()); err != nil {
		t.Fatal(err)
	}
	isNewer(t, dir)
	if after, err := os.Stat(dir); err != nil || !os.SameFile(before, after) || after.Mode().Perm() != 0o755 {
		t.Errorf("it is another directory: %v, %v", after, err)
	}
	if core, err := os.Stat(filepath.Join(dir, "core-7.img")); err != nil || core.Mode().Perm() != 0o600 {
		t.Errorf("others may read it: %v, %v", core, err)
	}
}

func TestSetThatIsNotPublishedLeavesTheOldOne(t *testing.T) {
	dir := older(t)
	had := entries(t, dir)
	if err := newer(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	if got := entries(t, dir); got != had {
		t.Errorf("%s, it was %s", got, had)
	}
	fresh := filepath.Join(t.TempDir(), "a")
	if err := newer(t, fresh).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(fresh); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory that was made for it: %v", err)
	}
}

// Whoever opens the directory, or writes the next set into it, ends what was cut off.
func TestPublishThatWasCutOffIsEnded(t *testing.T) {
	for cut := range 10 {
		dir := older(t)
		s := newer(t, dir)
		ready := filepath.Join(dir, readyName)
		if err := os.Rename(s.Dir, ready); err != nil {
			t.Fatal(err)
		}
		m, err := readManifest(ready)
		if err != nil {
			t.Fatal(err)
		}
		names := m.names()
		names[manifestName] = true
		if cut > 0 {
			if err := m.replace(dir, names); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range inOrder(names)[:max(0, cut-1)] {
			if err := os.Rename(filepath.Join(ready, name), filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil { // the lock is gone with its process
			t.Fatal(err)
		}
		if cut%2 == 0 {
			next, err := OpenStage(dir)
			if err == nil {
				err = next.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		isNewer(t, dir)
	}
}

func TestLinkToAParentIsRightWhereTheSetIsPublished(t *testing.T) {
	top := t.TempDir()
	put(t, filepath.Join(top, "1"), "", map[int]book{7: {16: 1}}, nil)
	dir := filepath.Join(top, "2")
	s := newer(t, dir)
	if err := os.Symlink(s.Parent("../1"), filepath.Join(s.Dir, parentName)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Write(t.Context(), Origin{CRIU: "newer"}), s.Publish()); err != nil {
		t.Fatal(err)
	}
	set, err := Open(dir)
	if err != nil || len(set.Parents) != 1 || set.Manifest.Parent != "../1" {
		t.Errorf("%+v, %v", set, err)
	}
	for target, want := range map[string]bool{"1": true, "2": true, "3": false} {
		if got, err := LeadsTo(dir, filepath.Join(top, target)); err != nil || got != want {
			t.Errorf("%s: %v, %v", target, got, err)
		}
	}
}
