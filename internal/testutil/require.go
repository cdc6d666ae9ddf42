// Package testutil holds what tests of several packages share: the one place that may skip a test.
package testutil

import (
	"os"
	"os/exec"
	"testing"
)

// Need skips the test when ok is false, naming what is missing. Where CI is set everything must be there, so the test
// fails instead: a suite that skips itself silently proves nothing.
func Need(t testing.TB, ok bool, missing string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("missing here, and CI must have it: %s", missing)
	}
	t.Skipf("missing: %s", missing)
}

// Root skips the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	Need(t, os.Geteuid() == 0, "root")
}

// Command skips the test unless the program is on PATH, and returns its path.
func Command(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	Need(t, err == nil, "the program "+name)
	return path
}
