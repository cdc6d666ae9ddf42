package unlinked

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// ledger is the file that says which names a Target has made, so that whoever comes after a process that was killed can take them
// away. A line is written before its name is made. It is not waited for: what a power cut takes of it, the next move finds.
//
//	"/var/lib/migrate/bundles/web"                       the directory that all are in
//	1234 "rootfs/var/tmp/.migrate-deleted-0011..."       inode and name
type ledger struct {
	path, top string
	file      *os.File
}

// prefix is of every name that a Target makes; a number that nobody can guess follows.
const prefix = ".migrate-deleted-"

// note announces a name beneath the top.
func (l *ledger) note(name string, inode uint64) error {
	if l.path == "" {
		return nil
	}
	line := fmt.Sprintf("%d %q\n", inode, name)
	if l.file == nil {
		file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("note names of deleted files: %w", err)
		}
		l.file, line = file, fmt.Sprintf("%q\n", l.top)+line
	}
	if _, err := l.file.WriteString(line); err != nil {
		return fmt.Errorf("note names of deleted files: %w", err)
	}
	return nil
}

// close removes it: its names are gone.
func (l *ledger) close() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	if gone := os.Remove(l.path); !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// Clear removes the names that a Target has noted in a ledger and not removed, then the ledger. A name that leads to anything but
// the file that it was made for is left alone, as is one whose directory has been moved. No ledger, nothing to do.
func Clear(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("clear names of deleted files: %w", err)
	}
	first, rest, _ := strings.Cut(string(text), "\n")
	if name, err := strconv.Unquote(first); err == nil {
		if err := clearBeneath(name, rest); err != nil {
			return fmt.Errorf("clear names of deleted files: %w", err)
		}
	}
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func clearBeneath(name, lines string) error {
	top, err := fs.OpenDir(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer top.Close()
	for line := range strings.Lines(lines) {
		number, quoted, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		inode, numberErr := strconv.ParseUint(number, 10, 64)
		name, nameErr := strconv.Unquote(quoted)
		if numberErr != nil || nameErr != nil {
			continue // it was being written
		}
		err = errors.Join(err, unname(top, name, inode))
	}
	return err
}

// unname takes one name away. Its directory may be gone, or have become something else: the container had the tree.
func unname(top *fs.Dir, name string, inode uint64) error {
	dir, err := top.Beneath(path.Dir(name))
	if err != nil {
		return nil // then the name is not there
	}
	defer dir.Close()
	st, err := dir.Stat(path.Base(name))
	if err != nil || st.Ino != inode || !st.IsRegular() || !strings.HasPrefix(path.Base(name), prefix) {
		return nil // gone, or another file
	}
	return dir.Unlink(path.Base(name))
}
