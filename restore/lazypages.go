package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// lazyPagesTime is how long the server of lazy pages may take to open its socket; CRIU itself would not wait at all.
const lazyPagesTime = 5 * time.Second

// awaitLazyPages waits for the socket of `criu lazy-pages`, which callers start in the background right before restore.
func awaitLazyPages(ctx context.Context, workDir string, limit time.Duration) error {
	path := filepath.Join(workDir, "lazy-pages.socket")
	for end := time.Now().Add(limit); ; {
		_, err := os.Stat(path)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) || time.Now().After(end) {
			return fmt.Errorf("find the server of lazy pages: %w (start `criu lazy-pages` with this work directory)", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
