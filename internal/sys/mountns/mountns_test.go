package mountns

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/livemigrate/migrate/internal/testutil"
)

// A mount that got out would be everybody's: for CRIU's cache that means wrong pre-dumps on the whole host.
func TestOnlyTheChildSeesTheMounts(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"target": "everybody's", "by": "the child's"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	target, by := filepath.Join(dir, "target"), filepath.Join(dir, "by")
	var seen []byte
	err := Do(func() error {
		if err := Replace(target, by); err != nil {
			return err
		}
		// It stays when its file loses its name.
		if err := os.Remove(by); err != nil {
			return err
		}
		var err error
		seen, err = exec.Command("cat", target).Output()
		return err
	})
	if err != nil || string(seen) != "the child's" {
		t.Errorf("the child sees %q, %v", seen, err)
	}
	if text, err := os.ReadFile(target); err != nil || string(text) != "everybody's" {
		t.Errorf("this process sees %q, %v", text, err)
	}
	err = Do(func() error {
		if err := Cover(dir); err != nil {
			return err
		}
		_, err := os.Stat(target)
		return err
	})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("under a cover: %v", err)
	}
	if _, err := os.Stat(target); err != nil {
		t.Errorf("this process: %v", err)
	}
	refused := errors.New("refused")
	if err := Do(func() error { return refused }); !errors.Is(err, refused) {
		t.Errorf("%v", err)
	}
}

// Whoever enters a namespace sees its mounts, and the caller stays where it was.
func TestInSeesTheOthersMounts(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	child := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", `mount -t tmpfs other "$0" && touch "$0/seen" && echo ready && exec sleep 60`, dir)
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = child.Process.Kill(), child.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open(filepath.Join("/proc", strconv.Itoa(child.Process.Pid), "ns/mnt"))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = In(ns, func() error {
		_, err := os.Stat(filepath.Join(dir, "seen"))
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "seen")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("this process: %v", err)
	}
}
