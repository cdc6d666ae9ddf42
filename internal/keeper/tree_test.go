package keeper

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/internal/testutil"
)

// What is counted is what will be sent: else a move is refused for want of room that it does not need.
func TestSizeCountsWhatIsSent(t *testing.T) {
	testutil.Root(t)
	top := t.TempDir()
	mounted := filepath.Join(top, "mounted")
	err := errors.Join(
		os.WriteFile(filepath.Join(top, "file"), make([]byte, 256<<10), 0o644),
		os.Link(filepath.Join(top, "file"), filepath.Join(top, "again")),
		os.Link(filepath.Join(top, "file"), filepath.Join(top, "once more")),
		os.Symlink("file", filepath.Join(top, "link")),
		os.Mkdir(mounted, 0o755),
		syscall.Mount("tmpfs", mounted, "tmpfs", 0, "size=1m"),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(mounted, syscall.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(mounted, "other"), make([]byte, 512<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	if n := (&tree{path: top}).size(); n != 256<<10 {
		t.Errorf("%d bytes, want %d", n, 256<<10)
	}
	if n := (&tree{path: filepath.Join(top, "nothing")}).size(); n != 0 {
		t.Errorf("what is not there has %d bytes", n)
	}
}
