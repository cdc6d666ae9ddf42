package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runPKI runs `migrate pki ARGS` and returns what it printed.
func runPKI(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := newPKICommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestPKINamesEveryFileThatServeNeeds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	out, err := runPKI(t, "init", dir)
	if err != nil || !strings.Contains(out, "migrate pki issue HOST --dir "+dir) {
		t.Fatalf("init says %q, %v", out, err)
	}
	out, err = runPKI(t, "issue", "host-a", "--host", "127.0.0.1", "--dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"host-a.crt", "host-a.key", "ca.crt"} {
		path := filepath.Join(dir, name)
		if !strings.Contains(out, path) {
			t.Errorf("issue does not name %s: %q", path, out)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

func TestPKISaysHowToGoOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := runPKI(t, "issue", "host-a", "--dir", dir); err == nil || !strings.Contains(err.Error(), "migrate pki init") {
		t.Errorf("issue without authority: %v", err)
	}
	if _, err := runPKI(t, "init", dir); err != nil {
		t.Fatal(err)
	}
	if _, err := runPKI(t, "init", dir); err == nil || !strings.Contains(err.Error(), "--force overwrites it") {
		t.Errorf("second init: %v", err)
	}
	if _, err := runPKI(t, "init", dir, "--force"); err != nil {
		t.Errorf("init with --force: %v", err)
	}
}
