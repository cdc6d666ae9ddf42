package pagemap

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNoSoftDirty: the kernel was built without CONFIG_MEM_SOFT_DIRTY.
var ErrNoSoftDirty = errors.New("kernel has no soft-dirty bits")

// HaveScan tells by an error that the kernel has no PAGEMAP_SCAN (Linux 6.7).
func HaveScan() error {
	m, err := Open(os.Getpid(), make([]Region, 1))
	if err != nil {
		return err
	}
	defer m.Close()
	const pageSize = 4096
	return m.Scan(Query{Start: pageSize, End: 2 * pageSize, Any: Present, Return: Present}, func([]Region) {})
}

// HaveSoftDirty tells by an error that the kernel does not follow writes by soft-dirty bits. It asks by doing: those of this
// process are cleared.
func HaveSoftDirty() error {
	page, dirty, err := ownPage()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(page) }()
	page[0] = 1
	if err := ClearSoftDirty(os.Getpid()); err != nil {
		return err
	}
	before, err := dirty()
	if err != nil {
		return err
	}
	page[0] = 2
	after, err := dirty()
	if err != nil {
		return err
	}
	if before&EntrySoftDirty != 0 || after&EntrySoftDirty == 0 {
		return ErrNoSoftDirty
	}
	return nil
}

// ZeroFrame is the page frame number of the kernel's page of zeros, which is what is mapped where a process reads and never
// wrote; 0 for who may not know.
func ZeroFrame() (uint64, error) {
	page, entry, err := ownPage()
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Munmap(page) }()
	if page[0] != 0 { // the reading is what counts
		return 0, errors.New("fresh memory is not zero")
	}
	e, err := entry()
	return e.Frame(), err
}

// ownPage is a fresh page of this process, and its entry.
func ownPage() (page []byte, entry func() (Entry, error), err error) {
	page, err = unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, nil, fmt.Errorf("map a page: %w", os.NewSyscallError("mmap", err))
	}
	// Its neighbours may be joined to it, and what is large enough is given the huge page of zeros, which is another one.
	// EINVAL is a kernel without huge pages.
	if err := unix.Madvise(page, unix.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
		return nil, nil, errors.Join(os.NewSyscallError("madvise", err), unix.Munmap(page))
	}
	start := uint64(uintptr(unsafe.Pointer(&page[0])))
	return page, func() (e Entry, err error) {
		m, err := Open(os.Getpid(), nil)
		if err != nil {
			return 0, err
		}
		defer m.Close()
		err = m.Read(start, start+uint64(len(page)), func(_ uint64, entries []Entry) { e = entries[0] })
		return e, err
	}, nil
}
