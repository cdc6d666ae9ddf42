package unlinked

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/livemigrate/migrate/internal/sys/fs"
	"github.com/livemigrate/migrate/internal/sys/process"
)

// inode is a file, whatever it is called.
type inode struct{ dev, number uint64 }

// sighting is a file without a name, as the container's processes have it.
type sighting struct {
	stat     fs.Stat
	link     string // of /proc, by which it is opened
	places   []Place
	opens    int  // descriptors and mappings
	writable bool // somebody can write to it without being noticed in time
	odd      bool // it is on a mount that does not travel, or watched, or open too often
}

// finder looks at processes.
type finder struct {
	mounts  map[int]mount
	least   int64 // bytes on the disk, of what is worth it
	found   map[inode]*sighting
	watched map[uint64]bool // inode numbers, by inotify or fanotify: CRIU finds those of its own copies only
}

// find looks at every process, those that end meanwhile left out.
func find(pids []int, mounts map[int]mount, least int64) (map[inode]*sighting, error) {
	f := &finder{mounts, least, make(map[inode]*sighting), make(map[uint64]bool)}
	for _, pid := range pids {
		if err := errors.Join(f.descriptors(pid), f.mappings(pid)); err != nil {
			return nil, err
		}
	}
	f.judge()
	return f.found, nil
}

// judge tells which are left to CRIU.
func (f *finder) judge() {
	for id, s := range f.found {
		s.odd = s.odd || f.watched[id.number] || len(s.places) > mostPlaces || s.opens > mostOpens
	}
}

func (f *finder) descriptors(pid int) error {
	numbers, err := process.Descriptors(pid)
	if err != nil {
		return process.Gone(err)
	}
	proc := "/proc/" + strconv.Itoa(pid)
	for _, number := range numbers {
		link := filepath.Join(proc, "fd", number)
		text, err := os.Readlink(link)
		if err == nil && (text == "anon_inode:inotify" || text == "anon_inode:[fanotify]") {
			err = f.watches(filepath.Join(proc, "fdinfo", number))
		}
		if err == nil && isUnlinked(text) {
			var info os.FileInfo
			if info, err = os.Lstat(link); err == nil { // the link's mode is the descriptor's
				err = f.see(link, text, info.Mode()&0o200 != 0)
			}
		}
		if err := process.Gone(err); err != nil {
			return err
		}
	}
	return nil
}

func (f *finder) mappings(pid int) error {
	return process.Gone(process.Mappings(pid, func(m *process.Mapping) error {
		if !isUnlinked(m.Name) {
			return nil
		}
		link := filepath.Join("/proc/"+strconv.Itoa(pid), "map_files", m.Area)
		text, err := os.Readlink(link)
		if err == nil {
			err = f.see(link, text, m.Writable() && m.Shared())
		}
		return process.Gone(err)
	}))
}

const suffix = " (deleted)"

// isUnlinked tells by what a link of /proc says. Memory files are none: CRIU saves them as memory.
func isUnlinked(text string) bool {
	if !strings.HasPrefix(text, "/") || !strings.HasSuffix(text, suffix) {
		return false
	}
	return !slices.ContainsFunc([]string{"/memfd:", "/SYSV", "/dev/zero", "/anon_hugepage", "/[aio]"}, func(kind string) bool {
		return strings.HasPrefix(text, kind)
	})
}

// see notes what a link leads to.
func (f *finder) see(link, text string, writable bool) error {
	st, err := fs.StatPath(link)
	if err != nil || !st.IsRegular() || st.Nlink > 0 || st.Blocks*512 < f.least {
		return err
	}
	id := inode{st.Dev, st.Ino}
	s := f.found[id]
	if s == nil {
		s = &sighting{stat: st, link: link}
		f.found[id] = s
	}
	s.opens++
	s.writable = s.writable || writable
	if s.odd || len(f.mounts) == 0 {
		s.odd = true
		return nil
	}
	number, ok := mountOf(link)
	m, travels := f.mounts[number]
	if !ok || !travels || m.dev != st.Dev { // and if it can't be opened: CRIU may know how
		s.odd = true
		return nil
	}
	place := Place{Mount: number, Device: st.KernelDev(), Inode: st.Ino, Root: m.root, Point: m.point, Path: strings.TrimSuffix(text, suffix)}
	if len(place.Path) > mostPath || len(place.Point) > mostPath {
		s.odd = true
	}
	if !slices.ContainsFunc(s.places, func(p Place) bool { return p.Mount == number }) {
		s.places = append(s.places, place) // names that it had beside this are lost: the images know it by mount and inode
	}
	return nil
}

func mountOf(link string) (id int, ok bool) {
	file, err := fs.OpenLink(link)
	if err != nil {
		return 0, false
	}
	defer file.Close()
	id, err = fs.MountOf(int(file.Fd()))
	return id, err == nil
}

// watches reads "inotify wd:1 ino:1c2 sdev:fd00001 mask:..." and the like.
func (f *finder) watches(path string) error {
	info, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, word := range strings.Fields(string(info)) {
		if text, ok := strings.CutPrefix(word, "ino:"); ok {
			if number, err := strconv.ParseUint(text, 16, 64); err == nil {
				f.watched[number] = true
			}
		}
	}
	return nil
}
