package restore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Callers start the server in the background: a restore that comes first must not fail for it.
func TestLazyRestoreWaitsForTheServerOfItsPages(t *testing.T) {
	dir := t.TempDir()
	time.AfterFunc(50*time.Millisecond, func() {
		_ = os.WriteFile(filepath.Join(dir, "lazy-pages.socket"), nil, 0o600)
	})
	if err := awaitLazyPages(context.Background(), dir, time.Minute); err != nil {
		t.Error(err)
	}
	if err := awaitLazyPages(context.Background(), t.TempDir(), time.Millisecond); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no server: %v", err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if err := awaitLazyPages(cancelled, t.TempDir(), time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
