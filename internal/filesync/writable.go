package filesync

import (
	"bufio"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// WritableFiles returns the paths beneath root of the regular files that the processes hold open for writing or have mapped
// shared and writable, in whichever mount namespace they are. A write through a mapping raises no event and, while the page
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
		proc := "/proc/" + strconv.Itoa(pid)
		if err := errors.Join(w.descriptors(proc), w.mappings(proc)); err != nil {
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

func (w *writable) descriptors(proc string) error {
	list, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return gone(err)
	}
	for _, e := range list {
		link := filepath.Join(proc, "fd", e.Name())
		info, err := os.Lstat(link)
		if err != nil {
			if err := gone(err); err != nil {
				return err
			}
			continue
		}
		if info.Mode()&0o200 == 0 { // the link's mode is the descriptor's: opened for reading only
			continue
		}
		if err := w.link(link); err != nil {
			return err
		}
	}
	return nil
}

func (w *writable) mappings(proc string) error {
	f, err := os.Open(filepath.Join(proc, "maps"))
	if err != nil {
		return gone(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// 7f0000000000-7f0000001000 rw-s 00000000 fe:00 123 /path
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || len(fields[1]) < 4 || fields[1][1] != 'w' || fields[1][3] != 's' {
			continue
		}
		if err := w.link(filepath.Join(proc, "map_files", mapName(fields[0]))); err != nil {
			return err
		}
	}
	return gone(lines.Err())
}

// mapName is a range as map_files writes it: without the leading zeros that maps pads with.
func mapName(addresses string) string {
	from, to, _ := strings.Cut(addresses, "-")
	trim := func(s string) string {
		if s = strings.TrimLeft(s, "0"); s == "" {
			return "0"
		}
		return s
	}
	return trim(from) + "-" + trim(to)
}

// link looks at one of /proc's links to an open file.
func (w *writable) link(link string) error {
	st, err := fs.StatPath(link)
	if err != nil {
		return gone(err)
	}
	key := [2]uint64{st.Dev, st.Ino}
	if _, seen := w.inodes[key]; seen || !st.IsRegular() || st.Nlink == 0 {
		return nil
	}
	w.inodes[key] = struct{}{}
	text, err := os.Readlink(link)
	if err != nil {
		return gone(err)
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

// gone forgives that a process or its descriptor has ended.
func gone(err error) error {
	if errors.Is(err, iofs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}
