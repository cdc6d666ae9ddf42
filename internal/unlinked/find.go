package unlinked

import (
	"bufio"
	"bytes"
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/fs"
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
		proc := "/proc/" + strconv.Itoa(pid)
		if err := errors.Join(f.descriptors(proc), f.mappings(proc)); err != nil {
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

func (f *finder) descriptors(proc string) error {
	dir, err := os.Open(filepath.Join(proc, "fd"))
	if err != nil {
		return gone(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return gone(err)
	}
	for _, name := range names {
		link := filepath.Join(proc, "fd", name)
		text, err := os.Readlink(link)
		if err == nil && (text == "anon_inode:inotify" || text == "anon_inode:[fanotify]") {
			err = f.watches(filepath.Join(proc, "fdinfo", name))
		}
		if err == nil && isUnlinked(text) {
			var info os.FileInfo
			if info, err = os.Lstat(link); err == nil { // the link's mode is the descriptor's
				err = f.see(link, text, info.Mode()&0o200 != 0)
			}
		}
		if err := gone(err); err != nil {
			return err
		}
	}
	return nil
}

func (f *finder) mappings(proc string) error {
	maps, err := os.ReadFile(filepath.Join(proc, "maps"))
	if err != nil {
		return gone(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(maps))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// 7f0000000000-7f0000001000 rw-s 00000000 fe:00 123 /path (deleted)
		fields := strings.SplitN(lines.Text(), " ", 6)
		if len(fields) < 6 || len(fields[1]) < 4 || !isUnlinked(strings.TrimLeft(fields[5], " ")) {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		link := filepath.Join(proc, "map_files", trim(from)+"-"+trim(to))
		text, err := os.Readlink(link) // maps writes a line feed as \012
		if err == nil {
			err = f.see(link, text, fields[1][1] == 'w' && fields[1][3] == 's')
		}
		if err := gone(err); err != nil {
			return err
		}
	}
	return lines.Err()
}

// trim takes the zeros away that maps pads with, and map_files does not.
func trim(address string) string {
	if address = strings.TrimLeft(address, "0"); address == "" {
		return "0"
	}
	return address
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

// gone forgives that a process or its descriptor has ended.
func gone(err error) error {
	if errors.Is(err, iofs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}
