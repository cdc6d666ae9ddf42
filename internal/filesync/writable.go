package filesync

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/livemigrate/migrate/internal/sys/fs"
	"github.com/livemigrate/migrate/internal/sys/process"
)

// WritableFiles returns the paths beneath root of the regular files that the processes hold open for writing or have mapped
// shared with the right to write, used or not, in whichever mount namespace they are. A write through a mapping raises no event and, while the page
// stays dirty, no new ctime either, so these files have to be read again in the frozen window. Needs root: the links in
// /proc/PID/map_files. A process that is gone has none.
func WritableFiles(root string, pids []int) ([]string, error) {
	dir, _, err := fs.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("find writable files: %w", err)
	}
	defer dir.Close()
	w := writable{root: dir, inodes: map[[2]uint64]struct{}{}}
	for _, pid := range pids {
		if err := errors.Join(w.descriptors(pid), w.mappings(pid)); err != nil {
			return nil, fmt.Errorf("find writable files of process %d: %w", pid, err)
		}
	}
	slices.Sort(w.paths)
	return slices.Compact(w.paths), nil
}

type writable struct {
	root   *fs.Dir
	inodes map[[2]uint64]struct{} // device and inode, looked up already
	paths  []string
}

func (w *writable) descriptors(pid int) error {
	numbers, err := process.Descriptors(pid)
	if err != nil {
		return process.Gone(err)
	}
	for _, number := range numbers {
		if err := process.Gone(w.open(filepath.Join("/proc/"+strconv.Itoa(pid), "fd", number))); err != nil {
			return err
		}
	}
	return nil
}

func (w *writable) mappings(pid int) error {
	return process.Gone(process.Mappings(pid, func(m *process.Mapping) error {
		if m.Name == "" || !m.Shared() {
			return nil
		}
		// What may not be written to now may have been, with pages that are dirty still. The file is open as it was mapped.
		return process.Gone(w.open(filepath.Join("/proc/"+strconv.Itoa(pid), "map_files", m.Area)))
	}))
}

// open looks at one of /proc's links to an open file. The link's mode is the file's: opened for writing.
func (w *writable) open(link string) error {
	info, err := os.Lstat(link)
	if err != nil || info.Mode()&0o200 == 0 {
		return err
	}
	return w.link(link)
}

// link looks at what is open for writing.
func (w *writable) link(link string) error {
	st, err := fs.StatPath(link)
	if err != nil {
		return err
	}
	key := [2]uint64{st.Dev, st.Ino}
	if _, seen := w.inodes[key]; seen || !st.IsRegular() || st.Nlink == 0 {
		return nil
	}
	w.inodes[key] = struct{}{}
	text, err := os.Readlink(link)
	if err != nil {
		return err
	}
	if path, ok := w.find(link, text, &st); ok {
		w.paths = append(w.paths, path)
	}
	return nil
}

// find returns the path beneath the root of what a link leads to, if it lies there.
func (w *writable) find(link, text string, st *fs.Stat) (string, bool) {
	if path, err := w.root.Find(text, st); err == nil {
		return path, true
	}
	// The text may be of a mount of some directory deeper in the tree.
	h, err := fs.HandleOf(link)
	if err != nil {
		return "", false
	}
	path, _, err := w.root.PathOf(h)
	return path, err == nil
}
