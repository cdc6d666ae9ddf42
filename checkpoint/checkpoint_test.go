package checkpoint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestImageDirectoryIsClosedToOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	o := &Options{ImagesDir: dir, WorkDir: filepath.Join(t.TempDir(), "work")}
	if err := o.prepare(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{o.ImagesDir, o.WorkDir} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
}

func TestParentMustBeAnotherDirectoryByARelativePath(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "pre"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for parent, want := range map[string]string{
		"../pre": "", "/pre": "must be relative", "../none": "invalid --parent-path", "../file": "is not a directory",
	} {
		err := (&Options{ImagesDir: filepath.Join(dir, "images"), ParentPath: parent}).prepare()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", parent, err)
		}
	}
	if err := (&Options{}).prepare(); err == nil {
		t.Error("no directory is accepted")
	}
}
