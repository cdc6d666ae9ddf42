package checkpoint

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestImageDirectoryKeepsItsModeAndANewOneIsClosed(t *testing.T) {
	top := t.TempDir()
	for name, mode := range map[string]os.FileMode{"open": 0o755, "group": 0o770, "all": 0o777, "tmp": 0o777 | os.ModeSticky, "new": 0} {
		dir := filepath.Join(top, name)
		if mode != 0 {
			if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, mode)); err != nil {
				t.Fatal(err)
			}
		}
		want := cmp.Or(mode, 0o700)
		for _, staged := range []bool{true, false} {
			o := &Options{ImagesDir: dir, WorkDir: filepath.Join(top, "work"), NoManifest: !staged, Client: &Client{}}
			err := o.openStage(false)
			if err == nil {
				err = o.prepare()
			}
			if err != nil {
				t.Errorf("%s, staged %v: %v", name, staged, err)
			}
			for path, want := range map[string]os.FileMode{dir: want, o.ImagesDir: cmp.Or(map[bool]os.FileMode{true: 0o700}[staged], want)} {
				if info, err := os.Stat(path); err != nil || info.Mode()&(os.ModePerm|os.ModeSticky) != want {
					t.Errorf("%s: %v, %v", path, info.Mode(), err)
				}
			}
			if err := o.closeStage(); err != nil {
				t.Error(err)
			}
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
