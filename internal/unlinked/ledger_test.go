package unlinked

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// named is a target that has given its file a name, as one whose process is killed leaves it.
func named(t *testing.T) (top, ledger, name string) {
	t.Helper()
	top, ledger = filepath.Join(t.TempDir(), "a\nb \xff"), filepath.Join(t.TempDir(), "ledger")
	must(t, os.MkdirAll(filepath.Join(top, "rootfs", "var"), 0o755))
	target := NewTarget(&TargetOptions{Top: top, Root: func(int) (string, error) { return "rootfs", nil }, Ledger: ledger})
	places := []Place{{Mount: 1, Inode: 2, Point: "/", Path: "/var/x"}, {Mount: 1, Inode: 3, Point: "/", Path: "/gone/x"}}
	must(t, target.apply(frameFile, &reader{rest: encodeFile(0, 0, places)[1:]}))
	for _, p := range places {
		_, err := target.Name(1, p.Inode)
		must(t, err)
	}
	t.Cleanup(func() { _ = target.Close() }) // it may not like what has become of its names
	return top, ledger, filepath.Join(top, "rootfs", "var", filepath.Base(target.names[0].name))
}

// left lists what there is besides directories.
func left(t *testing.T, top string) (names []string) {
	t.Helper()
	must(t, filepath.WalkDir(top, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, path)
		}
		return err
	}))
	return names
}

func TestNamesOfAKilledTargetAreCleared(t *testing.T) {
	top, ledger, name := named(t)
	if names := left(t, top); len(names) != 2 || names[1] != name {
		t.Fatalf("names: %q, one of them %q", names, name)
	}
	own := filepath.Join(filepath.Dir(name), prefix+"own")
	must(t, os.WriteFile(own, nil, 0o600))
	for range 2 { // the second time there is no ledger
		must(t, Clear(ledger))
	}
	if names := left(t, top); len(names) != 1 || names[0] != own {
		t.Errorf("left: %q", names)
	}
}

// Whatever has become of a name, nothing that is not the target's goes with it.
func TestClearTakesNothingElse(t *testing.T) {
	outside := t.TempDir()
	for what, change := range map[string]func(name string) error{
		"another file": func(name string) error {
			return errors.Join(os.Rename(name, name+".kept"), os.WriteFile(name, []byte("own"), 0o600))
		},
		"a directory": func(name string) error { return errors.Join(os.Rename(name, name+".kept"), os.Mkdir(name, 0o700)) },
		"a link in its way": func(name string) error {
			dir := filepath.Dir(name)
			return errors.Join(os.Rename(name, filepath.Join(outside, filepath.Base(name))), os.Remove(dir), os.Symlink(outside, dir))
		},
	} {
		t.Run(what, func(t *testing.T) {
			top, ledger, name := named(t)
			must(t, change(name))
			must(t, Clear(ledger))
			if _, err := os.Stat(name); err != nil {
				t.Errorf("it is gone: %v", err)
			}
			if _, err := os.Stat(ledger); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the ledger: %v", err)
			}
			if names := left(t, top); strings.Contains(fmt.Sprint(names), "rootfs/"+prefix) {
				t.Errorf("left: %q", names)
			}
		})
	}
}

// A ledger that was cut, or whose container is gone, stops nobody.
func TestClearTakesTornLedgers(t *testing.T) {
	top := t.TempDir()
	file := filepath.Join(top, prefix+"a")
	must(t, os.WriteFile(file, nil, 0o600))
	st, err := fs.StatPath(file)
	must(t, err)
	whole := fmt.Sprintf("%q\n%d %q\n", top, st.Ino, filepath.Base(file))
	for n := range whole[:len(whole)-1] {
		ledger := filepath.Join(t.TempDir(), "ledger")
		must(t, os.WriteFile(ledger, []byte(whole[:n]), 0o600))
		must(t, Clear(ledger))
		if _, err := os.Stat(file); err != nil {
			t.Fatalf("cleared by %q", whole[:n])
		}
	}
	for _, text := range []string{"\"/not/there\"\n1 \"x\"\n", whole + "1 \"../x\"\n-\n99"} {
		ledger := filepath.Join(t.TempDir(), "ledger")
		must(t, os.WriteFile(ledger, []byte(text), 0o600))
		must(t, Clear(ledger))
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("not cleared: %v", err)
	}
}
