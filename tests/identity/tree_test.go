package identity

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// tree is what a directory holds: a line for each name, of all that has to come along.
type tree map[string]string

// look reads a directory as it is in a container. Names that begin with skip are left out.
func look(t *testing.T, root string, skip ...string) tree {
	t.Helper()
	found, links := tree{}, map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(skip, func(s string) bool { return strings.HasPrefix(name, s) }) {
			return nil
		}
		line, err := describe(path, name, links)
		found[name] = line
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func describe(path, name string, links map[uint64]string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return "", err
	}
	line := fmt.Sprintf("%o %d:%d %d.%09d rdev %d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Rdev)
	if first, again := links[st.Ino]; again && st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		line += " is " + first
	} else {
		links[st.Ino] = name
	}
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		file, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer file.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, file); err != nil {
			return "", err
		}
		line += fmt.Sprintf(" %d bytes %x sparse %v", st.Size, sum.Sum(nil)[:6], st.Blocks*512 < st.Size)
	case syscall.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		return line + " -> " + target, nil
	}
	attributes := make([]byte, 4096)
	n, err := syscall.Listxattr(path, attributes)
	if err != nil {
		return line, nil // a file system without any
	}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(attributes[:n]), "\x00"), "\x00") {
		value := make([]byte, 4096)
		if n, err := syscall.Getxattr(path, attr, value); err == nil && attr != "" {
			line += fmt.Sprintf(" %s=%q", attr, value[:n])
		}
	}
	return line, nil
}

// same compares what was with what is.
func (was tree) same(t *testing.T, what string, is tree) {
	t.Helper()
	for name, line := range was {
		if is[name] != line {
			t.Errorf("%s: %q was\n%s and is\n%s", what, name, line, is[name])
		}
	}
	for name, line := range is {
		if _, ok := was[name]; !ok {
			t.Errorf("%s: %q is new: %s", what, name, line)
		}
	}
}

// everyKind makes one of each in a directory.
func everyKind(t *testing.T, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	sparse := func() error {
		file, err := os.Create(at("sparse"))
		if err != nil {
			return err
		}
		defer file.Close()
		if _, err := file.WriteAt([]byte("data"), 5<<20+12345); err != nil {
			return err
		}
		return file.Truncate(6 << 20)
	}
	for _, err := range []error{
		os.MkdirAll(at("sub/deep"), 0o750),
		os.WriteFile(at("sub/deep/file"), []byte("deep"), 0o640),
		os.WriteFile(at("file"), []byte("content"), 0o4755),
		os.Chown(at("file"), 12, 34),
		os.Chmod(at("file"), os.ModeSetuid|0o755),
		os.Link(at("file"), at("sub/hard")),
		os.Symlink("/nowhere/../x", at("link")),
		os.WriteFile(at("\xff\xfe not utf-8 \n"), []byte("name"), 0o600),
		os.WriteFile(at("capable"), []byte("program"), 0o755),
		syscall.Setxattr(at("capable"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0),
		syscall.Setxattr(at("sub"), "trusted.note", []byte("hidden"), 0),
		syscall.Mkfifo(at("fifo"), 0o620),
		syscall.Mknod(at("socket"), syscall.S_IFSOCK|0o700, 0),
		syscall.Mknod(at("null"), syscall.S_IFCHR|0o666, 1<<8|3),
		syscall.Mknod(at("loop"), syscall.S_IFBLK|0o660, 7<<8),
		sparse(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}
