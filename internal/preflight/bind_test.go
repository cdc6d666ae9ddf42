package preflight

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/sys/fs"
	"github.com/livemigrate/migrate/internal/testutil"
)

// sides makes a directory at "the source", and what "the peer" has under the same path: the same one, or a clone.
func sides(t *testing.T) (source, clone string) {
	t.Helper()
	source, clone = filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "data")
	old := time.Unix(1_500_000_000, 0)
	for _, dir := range []string{source, clone} {
		for _, err := range []error{
			os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o600),
			os.Chtimes(filepath.Join(dir, "file"), old, old), os.Chtimes(dir, old, old),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return source, clone
}

func describe(t *testing.T, path string, marked bool) *Bind {
	t.Helper()
	b, err := ReadBind(path)
	if err != nil {
		t.Fatal(err)
	}
	if marked {
		m, err := LeaveMark(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		b.Mark = m.Token
	}
	return b
}

// A volume that is not shared would cost the container its data without an error.
func TestCloneOfASharedVolumeIsFoundOut(t *testing.T) {
	source, clone := sides(t)
	for _, name := range []string{"", "file"} {
		for _, marked := range []bool{true, false} {
			b := describe(t, filepath.Join(source, name), marked)
			if f := b.judge(filepath.Join(source, name), "/in"); f.Blocked() {
				t.Errorf("the same %q, marked %v: %v", name, marked, f)
			}
			f := b.judge(filepath.Join(clone, name), "/in")
			if !f.Blocked() || f[0].Code != string(NotShared) || !strings.Contains(f[0].Text, clone) {
				t.Errorf("a clone of %q, marked %v: %v", name, marked, f)
			}
		}
	}
}

// noAttributes is a directory of a ramfs, which has none.
func noAttributes(t *testing.T) string {
	t.Helper()
	testutil.Root(t)
	where := t.TempDir()
	if err := syscall.Mount("ramfs", where, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(where, 0) })
	return where
}

func TestMarkIsFoundByAttributeAndByFileAndLeavesNothing(t *testing.T) {
	for kind, where := range map[string]string{"attribute": t.TempDir(), "file": "", "file beside": ""} {
		t.Run(kind, func(t *testing.T) {
			if kind != "attribute" {
				where = noAttributes(t)
			}
			before, err := fs.StatPath(where)
			if err != nil {
				t.Fatal(err)
			}
			marked := where
			if kind == "file beside" {
				marked = filepath.Join(where, "data")
				if err := os.WriteFile(marked, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if before, err = fs.StatPath(where); err != nil {
					t.Fatal(err)
				}
			}
			m, err := LeaveMark(marked)
			if err != nil {
				t.Fatal(err)
			}
			if m.file != (kind != "attribute") {
				t.Errorf("it is a file: %v", m.file)
			}
			if err := FindMark(marked, m.Token); err != nil {
				t.Error(err)
			}
			if err := FindMark(marked, strings.Repeat("0", tokenLength)); err == nil {
				t.Error("another's mark is found")
			}
			for _, bad := range []string{"", "../../etc/passwd", strings.Repeat("/", tokenLength)} {
				if err := FindMark(marked, bad); err == nil {
					t.Errorf("%q is found", bad)
				}
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			after, err := fs.StatPath(where)
			if err != nil || after.Mtime != before.Mtime {
				t.Errorf("its time is %v, was %v (%v)", after.Mtime, before.Mtime, err)
			}
			if left, _ := filepath.Glob(where + "/.*"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			if err := FindMark(marked, m.Token); err == nil {
				t.Error("the mark is still there")
			}
		})
	}
}

// A killed process's mark goes with the next.
func TestForgottenMarksAreSwept(t *testing.T) {
	path := t.TempDir()
	dir, err := fs.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	const old = markPrefix + "0123456789abcdef"
	if err := dir.SetXattr("", old, []byte("0123456789abcdef0123456789abcdef 1000000000")); err != nil {
		t.Fatal(err)
	}
	m, err := LeaveMark(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := dir.Xattrs(""); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// What has only the name of a mark is the user's, and so is what may still be looked for another move's.
func TestForgottenMarkFilesAreSwept(t *testing.T) {
	where := noAttributes(t)
	token := strings.Repeat("0123456789abcdef", 2)
	old := time.Now().Add(-2 * forgotten)
	for name, text := range map[string]string{markFile(token): token, filePrefix + "0000000000000001": "the user's", filePrefix + "other": token} {
		path := filepath.Join(where, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(where, filePrefix+"0000000000000002"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := fs.StatPath(where)
	if err != nil {
		t.Fatal(err)
	}
	m, err := LeaveMark(where)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(where)
	if err != nil || len(left) != 3 || left[0].Name() != filePrefix+"0000000000000001" {
		t.Errorf("left: %v, %v", left, err)
	}
	if after, err := fs.StatPath(where); err != nil || after.Mtime != before.Mtime {
		t.Errorf("the time of the directory is %v, was %v (%v)", after.Mtime, before.Mtime, err)
	}
}

// The container may have taken the file away meanwhile, or another's sweep the mark.
func TestMarkThatHasGoneIsClosedWithoutAnError(t *testing.T) {
	for kind, where := range map[string]string{"attribute": t.TempDir(), "file": noAttributes(t)} {
		m, err := LeaveMark(where)
		if err != nil {
			t.Fatal(err)
		}
		if m.file {
			err = os.Remove(filepath.Join(where, markFile(m.Token)))
		} else {
			err = m.dir.RemoveXattr("", markAttr(m.Token))
		}
		if err = errors.Join(err, m.Close()); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// Two copies of a file look the same; where nothing could be marked, the user is told before the container writes to one.
func TestUnprovenFileIsAWarning(t *testing.T) {
	source, _ := sides(t)
	for name, want := range map[string]Severity{"": Note, "file": Warning} {
		b := describe(t, filepath.Join(source, name), false)
		if f := b.judge(filepath.Join(source, name), "/in"); len(f) != 1 || f[0].Severity != want {
			t.Errorf("%q: %v", name, f)
		}
	}
}

func TestWhatIsNoVolumeMustBeOfTheSameKind(t *testing.T) {
	dir := t.TempDir()
	fifo, file := filepath.Join(dir, "fifo"), filepath.Join(dir, "file")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(other, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	readable := describe(t, file, true)
	readable.Equal = true
	for name, c := range map[string]struct {
		theirs  *Bind
		path    string
		blocked bool
	}{
		"the same device":             {describe(t, "/dev/null", false), "/dev/null", false},
		"another device":              {describe(t, "/dev/null", false), "/dev/zero", true},
		"a file for a device":         {describe(t, "/dev/null", false), file, true},
		"a fifo":                      {describe(t, fifo, false), fifo, false},
		"the kernel's":                {describe(t, "/proc", false), "/proc", false},
		"another of the kernel's":     {describe(t, "/proc", false), "/sys", true},
		"an equal file, only to read": {readable, other, false},
		"an equal file, to write":     {describe(t, file, true), other, true},
		"nothing there":               {describe(t, file, true), "/no/such/file", true},
	} {
		t.Run(name, func(t *testing.T) {
			a := &Arrival{
				Spec:  &specs.Spec{Mounts: []specs.Mount{{Type: "bind", Source: c.path, Destination: "/in"}}},
				Binds: []Bind{*c.theirs},
			}
			if f := a.judgeBinds(); f.Blocked() != c.blocked {
				t.Errorf("%v", f)
			}
		})
	}
}
