package monitor

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/internal/testutil"
)

func TestFullDiskCostsOnlyTheOutputThatDoesNotFit(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	l, err := openLog(&Config{LogFile: filepath.Join(dir, "log")})
	if err != nil {
		t.Fatal(err)
	}
	l.write([]byte("before\n"))
	hog := filepath.Join(dir, "hog")
	_ = os.WriteFile(hog, make([]byte, 1<<20), 0o600) // takes all there is
	l.write(bytes.Repeat([]byte("x"), 8<<10))         // the rest of the log's page, then no more
	l.write([]byte("not one byte"))
	fits := 4096 - len("before\n")
	if want := int64(8<<10 - fits + len("not one byte")); l.lost != want {
		t.Errorf("%d bytes are lost, want %d", l.lost, want)
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	l.write([]byte("after\n"))
	if want := int64(len("before\n") + 8<<10 + len("not one byte") + len("after\n")); l.offset.Load() != want {
		t.Errorf("the offset is %d, want %d: lost bytes count", l.offset.Load(), want)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	want := "before\n" + strings.Repeat("x", fits) +
		"\n[migrate: 4115 bytes of output were lost here: no space left on device]\nafter\n"
	got, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("the log is %q ... %q", got[:20], got[max(0, len(got)-100):])
	}
}

func TestLossIsToldOnceThereIsSpaceEvenWithoutMoreOutput(t *testing.T) {
	l, err := openLog(&Config{LogFile: filepath.Join(t.TempDir(), "log")})
	if err != nil {
		t.Fatal(err)
	}
	l.lost, l.cause = 5, syscall.ENOSPC
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(l.path)
	if err != nil || !strings.Contains(string(got), "5 bytes of output were lost here: no space left on device") {
		t.Errorf("the log is %q, %v", got, err)
	}
}

func TestOpenLogRefusesWhatWouldStopTheContainer(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openLog(&Config{LogFile: fifo}); err == nil {
		t.Error("opened a fifo that nobody reads")
	}
	reader, err := os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := openLog(&Config{LogFile: fifo}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("opened a fifo: %v", err)
	}
}

// What is put at the path later, a link or a device, is not followed or opened: not after a rotation either.
func TestLogThatAnotherHostNames(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "log"), filepath.Join(dir, "other")
	c := &Config{LogFile: path, Named: true}
	l, err := openLog(c)
	if err != nil {
		t.Fatal(err)
	}
	l.write([]byte("one\n"))
	if err := errors.Join(os.Rename(path, path+".1"), os.WriteFile(other, nil, 0o600), os.Symlink(other, path)); err != nil {
		t.Fatal(err)
	}
	if err := l.reopen(); err == nil {
		t.Error("a link was followed after a rotation")
	}
	l.write([]byte("two\n"))
	after := inheritLog(c)
	for name, l := range map[string]*logFile{"of a process before": goOn(c), "of none": after} {
		l.write([]byte("three\n"))
		if l.lost != 6 {
			t.Errorf("the log %s has lost %d bytes", name, l.lost)
		}
	}
	for name, want := range map[string]string{path + ".1": "one\ntwo\n", other: ""} {
		if text, err := os.ReadFile(name); string(text) != want || err != nil {
			t.Errorf("%s is %q, %v", name, text, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(after.close(), l.close()); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(path); !strings.Contains(string(text), "6 bytes of output were lost") {
		t.Errorf("the new log is %q", text)
	}
}

func TestLogGoesOnAtItsEndForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, text := range []string{"one\n", "two\n"} {
		l, err := openLog(&Config{LogFile: path})
		if err != nil {
			t.Fatal(err)
		}
		l.write([]byte(text))
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	info, statErr := os.Stat(path)
	if err != nil || statErr != nil || string(got) != "one\ntwo\n" || info.Mode().Perm() != 0o600 {
		t.Errorf("%q, %v, %v, %v", got, info.Mode(), err, statErr)
	}
}

func TestLogInBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(&Config{LogFile: path})
	if err != nil {
		t.Fatal(err)
	}
	l.limit = 1000
	line := []byte(strings.Repeat("x", 99) + "\n")
	for range 35 {
		l.write(line)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{path: 500, path + ".1": 1000} {
		if text, err := os.ReadFile(name); len(text) != want || err != nil {
			t.Errorf("%s has %d bytes, want %d; %v", name, len(text), want, err)
		}
	}
	if got := l.offset.Load(); got != 3500 {
		t.Errorf("the offset is %d", got)
	}
}
