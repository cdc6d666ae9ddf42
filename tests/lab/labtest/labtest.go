// Package labtest makes labs for tests.
package labtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/lab"
)

// Up makes a lab in which everything may take as long as limit says; its name begins with the prefix, a letter of each package.
// When the test ends, the context does, and then all of the lab is removed, after what the test itself has to clean up.
func Up(t *testing.T, prefix string, limit time.Duration) (context.Context, *lab.Lab) {
	t.Helper()
	testutil.Root(t)
	_, err := os.Stat(filepath.Join(lab.Repo(), "bin", "migrate"))
	testutil.Need(t, err == nil, "bin/migrate: make build")
	testutil.Need(t, lab.CRIU() != "", "a CRIU that works: scripts/setup")
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	name := fmt.Sprintf("%s%d", prefix, os.Getpid())
	l, err := lab.Up(ctx, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Down(context.WithoutCancel(ctx), name); err != nil {
			t.Error(err)
		}
	})
	return ctx, l
}
