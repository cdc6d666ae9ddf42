package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

const sharedPages = 256

// makeShared makes what the parent and the mate both write, and the tables of their versions, which both need as well.
func (k *kinds) makeShared() error {
	return errors.Join(
		k.sharedArea("shared anonymous", func() (int, error) { return -1, nil }),
		k.sharedArea("memfd", memfd),
		k.sharedFile("tmpfs file", filepath.Join(k.shm, "shared"), false),
		k.sharedFile("deleted tmpfs file", filepath.Join(k.shm, "deleted"), true),
		k.sharedFile("shared file", filepath.Join(k.dir, "shared"), false),
		k.systemV(),
		k.sharedHugetlb(),
	)
}

func memfd() (int, error) {
	fd, err := unix.MemfdCreate("kinds", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, err
	}
	return fd, unix.Ftruncate(fd, sharedPages*pageSize)
}

// sharedHugetlb is there where the machine has huge pages set aside.
func (k *kinds) sharedHugetlb() error {
	const kind = "shared hugetlb"
	if !k.wants(kind) {
		return nil
	}
	base, err := unix.MmapPtr(-1, 0, nil, hugePage, readWrite, unix.MAP_SHARED|unix.MAP_ANON|unix.MAP_HUGETLB)
	if errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("map %s: %w", kind, err)
	}
	return k.share(kind, base)
}

// sharedArea maps the descriptor, which stays open: what it leads to is the memory's alone.
func (k *kinds) sharedArea(kind string, open func() (fd int, err error)) error {
	if !k.wants(kind) {
		return nil
	}
	fd, err := open()
	if err != nil {
		return fmt.Errorf("make %s: %w", kind, err)
	}
	flags := unix.MAP_SHARED
	if fd < 0 {
		flags |= unix.MAP_ANON
	}
	base, err := unix.MmapPtr(fd, 0, nil, sharedPages*pageSize, readWrite, flags)
	if err != nil {
		return fmt.Errorf("map %s: %w", kind, err)
	}
	return k.share(kind, base)
}

func (k *kinds) share(kind string, base unsafe.Pointer) error {
	const size = sharedPages * unsafe.Sizeof(uint32(0))
	table, err := unix.MmapPtr(-1, 0, nil, size, readWrite, unix.MAP_SHARED|unix.MAP_ANON)
	if err != nil {
		return err
	}
	k.add(kind, base, sharedPages, 2, area{shared: true, versions: unsafe.Slice((*uint32)(table), sharedPages)})
	return nil
}

func (k *kinds) sharedFile(kind, path string, deleted bool) error {
	return k.sharedArea(kind, func() (int, error) {
		file, err := k.file(path, sharedPages)
		if err != nil {
			return -1, err
		}
		defer file.Close()
		if deleted {
			if err := os.Remove(path); err != nil {
				return -1, err
			}
		}
		return unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	})
}

// file is a new one of so many pages.
func (k *kinds) file(path string, pages int64) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return file, file.Truncate(pages * pageSize)
}

func (k *kinds) systemV() error {
	if !k.wants("system v") {
		return nil
	}
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, sharedPages*pageSize, unix.IPC_CREAT|0o600)
	if err != nil {
		return fmt.Errorf("make system v segment: %w", err)
	}
	memory, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		return err
	}
	return k.share("system v", unsafe.Pointer(unsafe.SliceData(memory)))
}

// mateEnds are the parent's ends of the mate's pipes.
type mateEnds struct {
	to, from *os.File
}

// startMate forks it. It is to be the first child, and so has none of what the parent opens later.
func (k *kinds) startMate() (*mateEnds, error) {
	in, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	from, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	j := k.job(mate)
	j.in, j.out = int(in.Fd()), int(out.Fd())
	j.theirs = [2]int{int(to.Fd()), int(from.Fd())}
	pid, err := k.start(j)
	if err != nil {
		return nil, err
	}
	go func() { k.fail(fmt.Errorf("the mate ended: %w", reap(pid))) }()
	return &mateEnds{to: to, from: from}, nil
}

func (m *mateEnds) ask(question byte) (byte, error) {
	if err := m.tell(question); err != nil {
		return 0, err
	}
	var answer [1]byte
	if _, err := m.from.Read(answer[:]); err != nil {
		return 0, fmt.Errorf("hear the mate: %w", err)
	}
	return answer[0], nil
}

func (m *mateEnds) tell(word byte) error {
	if _, err := m.to.Write([]byte{word}); err != nil {
		return fmt.Errorf("tell the mate: %w", err)
	}
	return nil
}
