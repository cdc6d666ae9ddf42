package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/lab"
)

// The short form of `make soak`.
func TestMovesLeaveNothingBehind(t *testing.T) {
	testutil.Root(t)
	_, err := os.Stat(filepath.Join(lab.Repo(), "bin", "migrate"))
	testutil.Need(t, err == nil, "bin/migrate: make build")
	testutil.Need(t, lab.CRIU() != "", "a CRIU that works: scripts/setup")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var table strings.Builder
	err = soak(ctx, &options{
		moves: 4, containers: 4, atOnce: 4, modes: []string{"auto", "post-copy", "hybrid"}, ways: []string{"tls"},
		lab: fmt.Sprintf("soak%d", os.Getpid()), out: &table,
	})
	t.Log("\n" + table.String())
	if err != nil {
		t.Error(err)
	}
}

func TestWhatHasGrownIsNamed(t *testing.T) {
	a := &lab.Host{Name: "a"}
	before := []count{{a, "mounts", []string{"/"}, 0, 0}, {a, "MB", nil, 10, 5}}
	var table strings.Builder
	if err := compare(&table, before, before); err != nil {
		t.Errorf("nothing has grown: %v", err)
	}
	err := compare(&table, before, []count{{a, "mounts", []string{"/", "/proc"}, 0, 0}, {a, "MB", nil, 16, 5}})
	if err == nil || err.Error() != "a: 1 more mounts: /proc\na: 16 MB, were 10" {
		t.Errorf("error is %v", err)
	}
	if err := compare(&table, before, []count{{a, "mounts", []string{"/proc"}, 0, 0}, {a, "MB", nil, 15, 5}}); err == nil {
		t.Error("one that has gone hides one that has come")
	}
}

// A load that gets another answer than it must, or none any more, says so.
func TestALoadThatIsHarmedSaysSo(t *testing.T) {
	l := &load{ended: make(chan struct{}), err: errors.New("cut")}
	close(l.ended)
	if err := l.unharmed(); !errors.Is(err, l.err) {
		t.Errorf("error is %v", err)
	}
}
