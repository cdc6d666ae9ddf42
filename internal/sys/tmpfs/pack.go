package tmpfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Open opens the root of the mount that process pid has at a path, without what is mounted inside it. Needs CAP_SYS_ADMIN.
func Open(pid int, at string) (*os.File, error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return nil, fmt.Errorf("open mount namespace: %w", err)
	}
	defer ns.Close()
	type result struct {
		fd  int
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- result{-1, errFirstThread}
			return
		}
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS)
		}
		fd := -1
		if err == nil {
			fd, err = unix.OpenTree(unix.AT_FDCWD, at, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
		}
		done <- result{fd, err}
	}()
	r := <-done
	if errors.Is(r.err, errFirstThread) {
		// While this goroutine waits there the next one is on another.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		return Open(pid, at)
	}
	if r.err != nil {
		return nil, fmt.Errorf("open mount %s: %w", at, r.err)
	}
	tree := os.NewFile(uintptr(r.fd), at)
	defer tree.Close()
	fd, err := unix.Openat(r.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open mount %s: %w", at, err)
	}
	return os.NewFile(uintptr(fd), at), nil
}

var errFirstThread = errors.New("on the first thread")

// packer walks a mount in which nobody writes.
type packer struct {
	out    io.Writer
	lines  *json.Encoder
	device uint64
	files  map[uint64]string // those with more names, by inode
}

// Pack writes all that is in the file system of root. Sockets are left out: whoever listens makes them anew.
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
	return entry{Name: name, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Mtime: st.Mtim.Nano()}
}

func (p *packer) directory(dir *os.File, name string, st *unix.Stat_t) error {
	if err := p.lines.Encode(describe(name, st)); err != nil {
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
			return p.lines.Encode(entry{Name: name, Hard: true, Link: first})
		}
		p.files[st.Ino] = name
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
		e.Link = string(text[:n])
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
	for at := int64(0); at < size; {
		from, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, syscall.ENXIO) {
			break // a hole up to the end
		}
		if err != nil {
			return err
		}
		to, err := f.Seek(from, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		e.Extents = append(e.Extents, [2]int64{from, to - from})
		at = to
	}
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
	return nil
}
