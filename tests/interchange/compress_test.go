package interchange

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// packed fails unless no page file in dir is plain.
func packed(t *testing.T, dir string) {
	t.Helper()
	frames, err := filepath.Glob(filepath.Join(dir, "pages-*.img.zst"))
	if err != nil || len(frames) == 0 {
		t.Errorf("no page file is compressed, %v", err)
	}
	plain, err := filepath.Glob(filepath.Join(dir, "pages-*.img"))
	if err != nil {
		t.Error(err)
	}
	for _, path := range plain {
		if info, err := os.Stat(path); err != nil || info.Size() > 0 {
			t.Errorf("%s is not compressed", path)
		}
	}
}

// Processes restored from compressed files have every byte, of every kind of memory. A stranger gets an error, not a container.
func TestCompressedCheckpointIsRestored(t *testing.T) {
	h := newHost(t)
	needUserfaultfd(t)
	r := newRunc(h)
	bundle := h.verifying("b", byID(nil), "kinds", "--megabytes", "1", "--small", "300", "--without", "hugetlb")
	p := h.program(bundle)
	p.leave("run", "-d", "saved")
	h.busyFor(p.initPid("saved"))
	p.save("--compress", "zstd", "--image-path", h.images("1"), "saved")
	packed(t, h.images("1"))
	before := digestsOf(t, h.images("1"))
	if out, err := r.command("restore", "-d", "--image-path", h.images("1"), "--bundle", bundle, h.unique("theirs")); err == nil {
		t.Errorf("runc restores what it cannot read: %s", out)
	}
	for _, lazy := range []string{"--lazy-pages=false", "--lazy-pages"} {
		p.leave("restore", "-d", lazy, "--log-file", filepath.Join(h.dir, "output"), "--image-path", h.images("1"), "again")
		c := askWorkload(t, p.initPid("again"))
		c.check()
		p.fed()
		c.check()
		p.do("delete", "-f", "again")
	}
	if after := digestsOf(t, h.images("1")); !slices.Equal(before, after) {
		t.Errorf("the images were altered: %q is now %q", before, after)
	}
	if _, err := os.Stat(filepath.Join(h.images("1"), "restore.log")); err != nil {
		t.Errorf("CRIU's log is not where it is wanted: %v", err)
	}
}

// Each of a chain of snapshots is compressed or not, as it likes.
func TestSnapshotsOnCompressedParents(t *testing.T) {
	h := newHost(t)
	needUserfaultfd(t)
	bundle := h.verifying("b", byID(nil), "memory", "--rate", "100", "64")
	p := h.program(bundle)
	p.leave("run", "-d", "saved")
	h.busyFor(p.initPid("saved"))
	for i, args := range [][]string{
		{"--pre-dump", "--compress", "zstd"},
		{"--leave-running", "--parent-path", "../images-0"},
		{"--leave-running", "--parent-path", "../images-1", "--compress", "zstd"},
		{"--parent-path", "../images-2", "--compress", "zstd"},
	} {
		p.save(append(args, "--image-path", h.images(string(rune('0'+i))), "saved")...)
		if size := sizeOf(t, h.images(string(rune('0'+i))), "pages-*"); i > 0 && size > 48<<20 {
			t.Errorf("snapshot %d takes %d MiB", i, size>>20)
		}
	}
	for _, images := range []string{"1", "2", "3"} {
		for _, lazy := range []string{"--lazy-pages=false", "--lazy-pages"} {
			p.leave("restore", "-d", lazy, "--image-path", h.images(images), "again")
			c := askWorkload(t, p.initPid("again"))
			c.check()
			p.fed()
			c.check()
			p.do("delete", "-f", "again")
		}
	}
}

// In a user namespace CRIU opens the images as somebody else.
func TestCompressedCheckpointInAUserNamespace(t *testing.T) {
	h := newHost(t)
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	bundle := h.verifying("b", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
	}, "memory", "16")
	h.run("chown", "-R", "100000:100000", filepath.Join(bundle, "rootfs"))
	p := h.program(bundle)
	p.leave("run", "-d", "saved")
	h.busyFor(p.initPid("saved"))
	p.save("--compress", "zstd", "--image-path", h.images("1"), "saved")
	p.leave("restore", "-d", "--image-path", h.images("1"), "again")
	h.busyFor(p.initPid("again"))
}

// What is not whole is refused before there is anything to clean up; the text names the file, and what to do.
func TestDamagedCompressedCheckpointIsRefused(t *testing.T) {
	h := newHost(t)
	bundle := h.verifying("b", byID(nil), "memory", "16")
	p := h.program(bundle)
	p.leave("run", "-d", "saved")
	h.busyFor(p.initPid("saved"))
	p.save("--compress", "zstd", "--image-path", h.images("1"), "saved")
	files, err := filepath.Glob(filepath.Join(h.images("1"), "pages-*.img.zst"))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(files[0])
	for what, damage := range map[string]func(content []byte) []byte{
		"altered": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"cut":     func(b []byte) []byte { return b[:len(b)-1] },
		"longer":  func(b []byte) []byte { return append(b, 0) },
		"missing": nil,
	} {
		t.Run(what, func(t *testing.T) {
			dir := h.images(what)
			h.run("cp", "-r", h.images("1"), dir)
			path := filepath.Join(dir, name)
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if damage == nil {
				err = os.Remove(path)
			} else {
				err = os.WriteFile(path, damage(content), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			out, code := p.try("restore", "-d", "--image-path", dir, "again")
			if code != 1 || !strings.Contains(out, name) || !strings.Contains(out, "take the file from a copy") {
				t.Errorf("exit code %d: %s", code, out)
			}
			if strings.Count(strings.TrimSpace(out), "\n") != 0 {
				t.Errorf("more than one line: %s", out)
			}
			if _, err := os.Stat(filepath.Join(dir, "restore.log")); err == nil {
				t.Error("CRIU was asked")
			}
			if list := p.do("list", "-q"); strings.Contains(list, "again") {
				t.Errorf("a container was made: %s", list)
			}
		})
	}
}
