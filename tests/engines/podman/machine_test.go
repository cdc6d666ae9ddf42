package podman

import (
	"archive/tar"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// processes are the command lines of everything that runs in the tests' pid namespace.
func processes(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for _, file := range files {
		line, _ := os.ReadFile(file) // it may end while we look
		lines.WriteString(strings.ReplaceAll(string(line), "\x00", " ") + "\n")
	}
	return lines.String()
}

func processName(t *testing.T, pid string) string {
	t.Helper()
	return read(t, filepath.Join("/proc", pid, "comm"))
}

// read is a file without its last line end.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(text), "\n")
}

// tarOf is an archive of one file.
func tarOf(t *testing.T, name, text string) string {
	t.Helper()
	var archive strings.Builder
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return archive.String()
}

// host is a program of this machine that must succeed; what it prints, without the last line end.
func (e *engine) host(name string, args ...string) string {
	e.Helper()
	out, err := exec.CommandContext(context.Background(), name, args...).CombinedOutput()
	if err != nil {
		e.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSuffix(string(out), "\n")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
