package fs

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
)

func TestBeneathDoesNotLeaveTheRoot(t *testing.T) {
	top := t.TempDir()
	root := filepath.Join(top, "root")
	for _, dir := range []string{"root/in/deep", "out"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../out", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("in", filepath.Join(root, "inner")); err != nil {
		t.Fatal(err)
	}
	d, _, err := OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for path, ok := range map[string]bool{
		"in": true, "in/deep": true, ".": true, "": true,
		"link": false, "inner": false, "inner/deep": false, "..": false, "in/../../out": false, "/": false, "/etc": false,
	} {
		sub, err := d.Beneath(path)
		if (err == nil) != ok {
			t.Errorf("Beneath(%q) = %v, want success %v", path, err, ok)
		}
		if err == nil {
			sub.Close()
		}
	}
}

// A process sees symlinks from its own root.
func TestWithinStaysInside(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "run/lock"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"var": "/run", "up": "../../../../run", "etc": "/proc/self/root/etc", "out": "/etc"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for path, ok := range map[string]bool{
		"/": true, "/run": true, "run/lock": true, "/var": true, "/var/lock": true, "/up/lock": true, "../run/lock": true,
		"/etc": false, "/out": false, "/none": false,
	} {
		d, err := OpenWithin(root, path)
		if (err == nil) != ok {
			t.Errorf("%q: %v, want success %v", path, err, ok)
		}
		if err == nil {
			d.Close()
		}
	}
}

func TestRootDoesNotCrossIntoMounts(t *testing.T) {
	testutil.Root(t)
	root := t.TempDir()
	mnt := filepath.Join(root, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", mnt, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(mnt, syscall.MNT_DETACH)
	if err := os.WriteFile(filepath.Join(mnt, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d, detached, err := OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	testutil.Need(t, detached, "open_tree")
	sub, err := d.Beneath("mnt")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if names, err := sub.Names(); err != nil || len(names) != 0 {
		t.Errorf("names = %v, %v: the mounted filesystem shows", names, err)
	}
}

func TestHandleLeadsBackToThePath(t *testing.T) {
	testutil.Root(t)
	top := t.TempDir()
	root := filepath.Join(top, "root")
	if err := os.MkdirAll(filepath.Join(root, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(top, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	d, _, err := OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for path, want := range map[string]string{root: ".", root + "/a": "a", root + "/a/b": "a/b"} {
		h, err := HandleOf(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := d.PathOf(h); err != nil || got != want {
			t.Errorf("PathOf(%s) = %q, %v, want %q", path, got, err, want)
		}
	}
	for _, path := range []string{top, top + "/a"} {
		h, err := HandleOf(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := d.PathOf(h); !errors.Is(err, ErrOutside) {
			t.Errorf("PathOf(%s) = %q, %v, want ErrOutside", path, got, err)
		}
	}
}

func TestNextDataFindsTheRuns(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 4 << 20
	if _, err := f.WriteAt([]byte("x"), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	start, end, err := NextData(f, 0, size)
	if err != nil || start > 1<<20 || end <= 1<<20 {
		t.Fatalf("NextData = %d, %d, %v", start, end, err)
	}
	if start, end, err = NextData(f, end, size); err != nil || start != size || end != size {
		t.Errorf("NextData at the last hole = %d, %d, %v", start, end, err)
	}
	if err := PunchHole(f, 0, 2<<20); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 1<<20); err != nil || b[0] != 0 {
		t.Errorf("after the punch: %v, %v", b, err)
	}
}

func TestTimeAdd(t *testing.T) {
	for _, c := range []struct {
		t    Time
		d    time.Duration
		want Time
	}{
		{Time{10, 5}, time.Second, Time{11, 5}},
		{Time{10, 999999999}, 2, Time{11, 1}},
		{Time{10, 1}, -2, Time{9, 999999999}},
	} {
		if got := c.t.Add(c.d); got != c.want {
			t.Errorf("%v + %v = %v, want %v", c.t, c.d, got, c.want)
		}
	}
}
