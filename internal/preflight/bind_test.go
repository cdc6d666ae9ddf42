package preflight

import (
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

func TestMarkIsFoundByAttributeAndByFileAndLeavesNothing(t *testing.T) {
	for kind, where := range map[string]string{"attribute": t.TempDir(), "file": t.TempDir()} {
		t.Run(kind, func(t *testing.T) {
			if kind == "file" { // a ramfs has no attributes
				testutil.Root(t)
				if err := syscall.Mount("ramfs", where, "ramfs", 0, ""); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = syscall.Unmount(where, 0) })
			}
			before, err := fs.StatPath(where)
			if err != nil {
				t.Fatal(err)
			}
			m, err := LeaveMark(where)
			if err != nil {
				t.Fatal(err)
			}
			if m.file != (kind == "file") {
				t.Errorf("it is a file: %v", m.file)
			}
			if err := FindMark(where, m.Token); err != nil {
				t.Error(err)
			}
			if err := FindMark(where, strings.Repeat("0", tokenLength)); err == nil {
				t.Error("another's mark is found")
			}
			for _, bad := range []string{"", "../../etc/passwd", strings.Repeat("/", tokenLength)} {
				if err := FindMark(where, bad); err == nil {
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
			if left, _ := os.ReadDir(where); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			if err := FindMark(where, m.Token); err == nil {
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
