package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/lab"
)

// The short form of `make test-faults`, and some of it where the hosts have cgroup v2 alone, like those of users: who is frozen,
// killed and let go of is another matter there.
func TestNeverTwoCopiesAndNothingLost(t *testing.T) {
	testutil.Root(t)
	needProgram(t)
	testutil.Need(t, lab.CRIU() != "", "a CRIU that works: scripts/setup")
	testutil.Command(t, "nft")
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	programs, err := build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(programs)
	for _, form := range []struct {
		name, cgroups string
		cells         []string
	}{
		{"short", "", []string{"-short"}},
		{"cgroup v2 alone", "v2", []string{"-cells", "^(source.dumped source|peer.restored criu-peer|peer.resume peer)$"}},
	} {
		t.Run(form.name, func(t *testing.T) {
			t.Setenv("LAB_CGROUPS", form.cgroups)
			var told bytes.Buffer
			err := run(ctx, append(form.cells, "-programs", programs), &told)
			t.Log(told.String())
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// What users run has no trace of the steps that tests stop at.
func TestProgramHasNoFailpoints(t *testing.T) {
	program := needProgram(t)
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, trace := range append([]string{"MIGRATE_FAILPOINTS"}, pointNames()...) {
		if bytes.Contains(text, []byte(trace)) {
			t.Errorf("%s holds %q", program, trace)
		}
	}
}

func pointNames() []string {
	var names []string
	for _, s := range steps {
		names = append(names, string(s.point))
	}
	return names
}

func needProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(lab.Repo(), "bin", "migrate")
	_, err := os.Stat(path)
	testutil.Need(t, err == nil, path+" (make build)")
	return path
}

func TestTableIsWrittenBetweenItsMarks(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(page, []byte("a\n<!-- faults auto: begin -->\nold\n<!-- faults auto: end -->\nb\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	table := &table{modes: []string{"auto"}, cells: []result{
		{"auto", steps[0], faults[0], verdict{at: atSource, ended: "force"}},
		{"auto", steps[1], faults[0], verdict{kind: wrong, why: "two copies ran"}},
	}}
	if err := table.write(page); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want := "a\n<!-- faults auto: begin -->\n| step | cut |\n|---|---|\n| `source.hello` | S! |\n| `peer.offer` | WRONG |\n<!-- faults auto: end -->\nb\n"
	if string(text) != want {
		t.Errorf("the page is\n%s", text)
	}
	more := &table.cells[0]
	more.fault, more.verdict = faults[2], verdict{at: atPeer}
	table.cells = table.cells[:1]
	if err := table.write(page); err != nil {
		t.Fatal(err)
	}
	text, _ = os.ReadFile(page)
	want = "| step | cut | stalled |\n|---|---|---|\n| `source.hello` | S! | P |\n| `peer.offer` | WRONG |  |\n"
	if !strings.Contains(string(text), want) {
		t.Errorf("with a cell more the page is\n%s", text)
	}
	table.modes = []string{"hybrid"}
	if err := table.write(page); err == nil || !strings.Contains(err.Error(), "no place") {
		t.Errorf("a page without marks: %v", err)
	}
}
