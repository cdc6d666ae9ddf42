package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/lab"
)

// The short form of `make soak-runtime`.
func TestContainersLeaveNothingBehind(t *testing.T) {
	testutil.Root(t)
	program := filepath.Join(lab.Repo(), "bin", "migrate")
	_, err := os.Stat(program)
	testutil.Need(t, err == nil, program+" (make build)")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var table strings.Builder
	err = soak(ctx, &options{cycles: 40, atOnce: 8, migrate: program, out: &table})
	t.Log(table.String())
	if err != nil {
		t.Error(err)
	}
}

func TestWhatHasGrownIsNamed(t *testing.T) {
	before := []count{{"mounts", []string{"a"}}, {"cgroups", []string{"x", "y"}}}
	after := []count{{"mounts", []string{"a", "b", "c"}}, {"cgroups", []string{"x"}}}
	var table strings.Builder
	err := compare(&table, before, after)
	if err == nil || err.Error() != "2 more mounts: b; c" {
		t.Errorf("error is %v", err)
	}
	if !strings.Contains(table.String(), "mounts   1       3") {
		t.Errorf("printed:\n%s", table.String())
	}
	if err := compare(&table, before, []count{{"mounts", []string{"b"}}, before[1]}); err == nil {
		t.Error("one that has gone hides one that has come")
	}
	if err := compare(&table, before, []count{{"mounts", []string{"a", "a"}}, before[1]}); err == nil {
		t.Error("a second of the same name is not seen")
	}
	if err := compare(&table, before, before); err != nil {
		t.Errorf("nothing has grown: %v", err)
	}
}
