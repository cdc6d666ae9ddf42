package tmpfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"
)

// packer walks a mount in which nobody writes.
type packer struct {
	out    io.Writer
	lines  *json.Encoder
	device uint64
	files  map[uint64]string // those with more names, by inode
}

// Pack writes all that is in the file system of root, in which nobody writes.
func Pack(root *os.File, out io.Writer) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: root.Name(), Err: err}
	}
	p := &packer{out: out, lines: json.NewEncoder(out), device: st.Dev, files: map[uint64]string{}}
	if err := p.directory(root, ".", &st); err != nil {
		return fmt.Errorf("pack %s: %w", root.Name(), err)
	}
	return p.lines.Encode(entry{Last: true})
}

func describe(name string, st *unix.Stat_t) entry {
	return entry{Name: []byte(name), Mode: st.Mode, UID: st.Uid, GID: st.Gid, Mtime: st.Mtim.Nano()}
}

func (p *packer) directory(dir *os.File, name string, st *unix.Stat_t) error {
	e := describe(name, st)
	var err error
	if e.Attributes, err = readAttributes(within(int(dir.Fd()), ".")); err != nil {
		return err
	}
	if err := p.lines.Encode(e); err != nil {
		return err
	}
	list, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := p.name(dir, e.Name(), path.Join(name, e.Name())); err != nil {
			return fmt.Errorf("%s: %w", path.Join(name, e.Name()), err)
		}
	}
	return nil
}

func (p *packer) name(dir *os.File, base, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fstatat", err)
	}
	kind := st.Mode & unix.S_IFMT
	e := describe(name, &st)
	switch {
	case len(name) > unix.PathMax: // each name beneath repeats it
		return unix.ENAMETOOLONG
	case st.Dev != p.device:
		return errors.New("another file system")
	case kind == unix.S_IFSOCK:
		return nil
	case kind == unix.S_IFDIR:
		child, err := open(dir, base, unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		return errors.Join(p.directory(child, name, &st), child.Close())
	}
	if st.Nlink > 1 {
		if first, ok := p.files[st.Ino]; ok {
			return p.lines.Encode(entry{Name: []byte(name), Hard: true, Link: []byte(first)})
		}
		p.files[st.Ino] = name
	}
	var err error
	if e.Attributes, err = readAttributes(within(int(dir.Fd()), base)); err != nil {
		return err
	}
	switch kind {
	case unix.S_IFREG:
		return p.file(dir, base, e, st.Size)
	case unix.S_IFLNK:
		text := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(dir.Fd()), base, text)
		if err != nil {
			return os.NewSyscallError("readlinkat", err)
		}
		e.Link = text[:n]
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Device = st.Rdev
	}
	return p.lines.Encode(e)
}

func open(dir *os.File, base string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NOATIME|flags, 0)
	if err != nil {
		return nil, os.NewSyscallError("openat", err)
	}
	return os.NewFile(uintptr(fd), base), nil
}

func (p *packer) file(dir *os.File, base string, e entry, size int64) error {
	f, err := open(dir, base, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	e.Size = size
	extents, err := findExtents(f, size)
	if err != nil {
		return err
	}
	for more := true; more; {
		n := min(len(extents), lineExtents)
		more = n < len(extents)
		e.Extents, e.More = extents[:n], more
		if err := p.lines.Encode(e); err != nil {
			return err
		}
		for _, x := range e.Extents {
			if _, err := f.Seek(x[0], io.SeekStart); err != nil {
				return err
			}
			if _, err := io.CopyN(p.out, f, x[1]); err != nil {
				return err
			}
		}
		e, extents = entry{}, extents[n:]
	}
	return nil
}

// findExtents lists what of a file is not a hole.
func findExtents(f *os.File, size int64) (extents [][2]int64, err error) {
	for at := int64(0); at < size; {
		from, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, syscall.ENXIO) {
			break // a hole up to the end
		}
		if err != nil {
			return nil, err
		}
		to, err := f.Seek(from, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		extents = append(extents, [2]int64{from, to - from})
		at = to
	}
	return extents, nil
}
