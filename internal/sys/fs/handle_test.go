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

// The number of an inode that is gone is soon given to another one, and while that one is made the kernel is "out of memory".
func TestHandleOfARemovedFileIsStaleWhateverIsMadeBeside(t *testing.T) {
	testutil.Root(t)
	root := t.TempDir()
	d, _, err := OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := os.WriteFile(filepath.Join(root, "gone"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := d.Handle("gone")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "gone")); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(300 * time.Millisecond)
	made := make(chan error, 1)
	go func() {
		next := filepath.Join(root, "next")
		for time.Now().Before(end) {
			if err := errors.Join(os.Mkdir(next, 0o700), os.Remove(next)); err != nil {
				made <- err
				return
			}
		}
		made <- nil
	}()
	for time.Now().Before(end) {
		if _, _, err := d.PathOf(h); !errors.Is(err, syscall.ESTALE) {
			t.Errorf("PathOf: %v, want ESTALE", err)
			break
		}
	}
	if err := <-made; err != nil {
		t.Error(err)
	}
}
