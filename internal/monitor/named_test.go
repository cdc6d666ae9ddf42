package monitor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The path is another host's word: it opens no device, follows no link, and is of no directory of this process.
func TestLogsThatAPeerNames(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(in("file"), []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink(in("file"), in("link")), os.Symlink(in("nothing"), in("dangling")), syscall.Mkfifo(in("fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(in("fifo"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for path, want := range map[string]string{
		in("file"):       "",
		in("fifo"):       "not a regular file",
		"/dev/null":      "",
		in("link"):       "not a regular file",
		in("dangling"):   "not a regular file",
		dir:              "not a regular file",
		"/dev/zero":      "not a regular file",
		"file":           "not an absolute path",
		"/dev/../dev":    "not an absolute path",
		in("absent"):     "no such file",
		in("absent/too"): "no such file",
	} {
		file, err := OpenNamed(path, 0)
		if err == nil {
			file.Close()
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	for _, name := range []string{"link", "dangling"} {
		if file, err := OpenNamed(in(name), os.O_CREATE); err == nil {
			file.Close()
			t.Errorf("%s is followed", name)
		}
	}
	file, err := OpenNamed(in("absent"), os.O_CREATE|os.O_EXCL)
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
}
