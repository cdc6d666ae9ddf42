package scratch

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/internal/testutil"
)

func TestDirectoryIsAtNoPathAndBounded(t *testing.T) {
	testutil.Root(t)
	d, err := New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.Path(), "a")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "text" {
		t.Errorf("%q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(d.Path(), "b"), make([]byte, 20<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("20 MiB in a directory for one: %v", err)
	}
	if info, err := os.Stat(d.Path() + "/."); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if after, err := os.ReadFile("/proc/self/mountinfo"); err != nil || len(after) != len(before) {
		t.Errorf("it is mounted: %s", after)
	}
}

func TestFreeMemoryIsRead(t *testing.T) {
	got, err := parseFree("MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable:   50 kB\nSwapTotal: 9 kB\nSwapFree: 7 kB\nHugePages_Total: 0\n")
	if err != nil || got != 57<<10 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := parseFree("MemTotal: 100 kB\n"); err == nil {
		t.Error("a text without the number is read")
	}
	if n, err := Free(); err != nil || n == 0 {
		t.Errorf("%d, %v", n, err)
	}
}
