// Package pagemap asks the kernel about the pages of a process: /proc/PID/pagemap and its scan (Linux 6.7), and
// /proc/PID/clear_refs.
package pagemap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Category is what a page is; several at once (include/uapi/linux/fs.h, PAGE_IS_*).
type Category uint64

// Categories. A page that is neither Present nor Swapped has never been touched, or was dropped.
const (
	WPAllowed Category = 1 << 0 // in an area that a userfaultfd watches by FeatureWPAsync
	Written   Category = 1 << 1 // not write-protected by a userfaultfd
	File      Category = 1 << 2 // of a file, or shared
	Present   Category = 1 << 3
	Swapped   Category = 1 << 4
	Zero      Category = 1 << 5 // the kernel's page of zeros
	Huge      Category = 1 << 6
	SoftDirty Category = 1 << 7
	Guard     Category = 1 << 8 // MADV_GUARD_INSTALL (known to the scan since Linux 6.15)
)

// Region is a run of pages of the same categories, as far as was asked for.
type Region struct {
	Start, End uint64
	Is         Category
}

// Query selects pages: those that have All, in which Not is turned round first, and one of Any, if any is given.
type Query struct {
	Start, End uint64
	All        Category // each of these must be so
	Not        Category // of these the contrary must be so
	Any        Category // one of these at least, unless 0
	Return     Category // what Region.Is tells of
	// Protect arms the selected pages against writes, atomically with looking at them: those that are Written no longer are.
	// Areas that are not WPAllowed are then left out.
	Protect bool
}

// ErrNoMemory: the process has no memory (any more): it ended, or is a kernel's.
var ErrNoMemory = errors.New("process has no memory")

// Map is the page map of one address space: that which the process had when it was opened.
type Map struct {
	file   *os.File
	buffer []Region
}

// Open opens the page map of a process or thread. It takes the right to trace it, and to see page frame numbers
// CAP_SYS_ADMIN. Buffer is where scans put their regions, some thousand; it may serve several maps after each other.
func Open(pid int, buffer []Region) (*Map, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			return nil, fmt.Errorf("open page map of %d: %w", pid, os.ErrProcessDone)
		}
		return nil, fmt.Errorf("open page map: %w", err)
	}
	return &Map{file: file, buffer: buffer}, nil
}

// Close closes the page map.
func (m *Map) Close() error { return m.file.Close() }

// scanArg is struct pm_scan_arg.
type scanArg struct {
	size, flags, start, end, walkEnd uint64
	vec                              unsafe.Pointer
	vecLen, maxPages                 uint64
	inverted, mask, anyOf, returned  Category
}

const (
	ioctlScan     = 0xc0606610 // PAGEMAP_SCAN, _IOWR('f', 16, struct pm_scan_arg)
	scanProtect   = 1 << 0     // PM_SCAN_WP_MATCHING
	entryBytes    = 8
	entriesInRead = 8192
)

// Scan calls f for the regions that the query selects, in ascending order; the slice is f's until it returns. Neighbours
// may have the same categories. With Protect, pages are armed that f has not seen yet when Scan fails.
func (m *Map) Scan(query Query, f func([]Region)) error {
	arg := scanArg{
		start: query.Start, end: query.End,
		vec: unsafe.Pointer(unsafe.SliceData(m.buffer)), vecLen: uint64(len(m.buffer)),
		inverted: query.Not, mask: query.All | query.Not, anyOf: query.Any, returned: query.Return,
	}
	arg.size = uint64(unsafe.Sizeof(arg))
	if query.Protect {
		arg.flags |= scanProtect
	}
	for arg.start < arg.end {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, m.file.Fd(), ioctlScan, uintptr(unsafe.Pointer(&arg)))
		switch {
		case errno == unix.EINTR && arg.walkEnd <= arg.start:
			continue
		case errno == unix.ESRCH:
			return fmt.Errorf("scan %s: %w", m.file.Name(), ErrNoMemory)
		case errno != 0:
			return fmt.Errorf("scan %s: %w", m.file.Name(), os.NewSyscallError("ioctl(PAGEMAP_SCAN)", errno))
		}
		// With more than 512 regions the kernel leaves walk_end where its own buffer was last full, though it went on and
		// came to the end (seen in 6.18): what was told of already must not be scanned again, for it is armed by now.
		next := arg.walkEnd
		if n > 0 {
			next = max(next, m.buffer[n-1].End)
			f(m.buffer[:n])
		}
		if next <= arg.start {
			return fmt.Errorf("scan %s: the kernel does not go on behind %#x", m.file.Name(), arg.start)
		}
		arg.start = next
	}
	return nil
}

// Has tells whether there is a page that the query selects.
func (m *Map) Has(query Query) (bool, error) {
	var first Region // the kernel counts regions that it has room for
	arg := scanArg{
		start: query.Start, end: query.End, vec: unsafe.Pointer(&first), vecLen: 1, maxPages: 1,
		inverted: query.Not, mask: query.All | query.Not, anyOf: query.Any,
	}
	arg.size = uint64(unsafe.Sizeof(arg))
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, m.file.Fd(), ioctlScan, uintptr(unsafe.Pointer(&arg)))
	switch errno {
	case 0:
		return n > 0, nil
	case unix.ESRCH:
		return false, fmt.Errorf("scan %s: %w", m.file.Name(), ErrNoMemory)
	default:
		return false, fmt.Errorf("scan %s: %w", m.file.Name(), os.NewSyscallError("ioctl(PAGEMAP_SCAN)", errno))
	}
}

// Entry is what pagemap says of a page (Documentation/admin-guide/mm/pagemap.rst).
type Entry uint64

// Bits of an entry.
const (
	EntryPresent   Entry = 1 << 63
	EntrySwapped   Entry = 1 << 62
	EntryFile      Entry = 1 << 61
	EntryAlone     Entry = 1 << 56 // mapped once (since Linux 4.2)
	EntrySoftDirty Entry = 1 << 55
	entryFrame     Entry = 1<<55 - 1
)

// Frame is the page frame number of a present page, 0 for who may not know.
func (e Entry) Frame() uint64 { return uint64(e & entryFrame) }

// Alone tells that the page is present, and in no other page table: no fork has it as well.
func (e Entry) Alone() bool { return e&(EntryPresent|EntryAlone) == EntryPresent|EntryAlone }

// ReadEntries fills entries with those of the pages from start on.
func (m *Map) ReadEntries(start uint64, entries []Entry) error {
	const pageSize = 4096
	buf := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(entries))), entryBytes*len(entries))
	for len(buf) > 0 {
		n, err := m.file.ReadAt(buf, int64(start/pageSize*entryBytes))
		if n -= n % entryBytes; n == 0 {
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("read %s: %w", m.file.Name(), ErrNoMemory)
			}
			return fmt.Errorf("read page map: %w", err)
		}
		buf = buf[n:]
		start += uint64(n) / entryBytes * pageSize
	}
	return nil
}

// Read calls f for the pages from start to end, some at a time, in ascending order, on any kernel: eight bytes a page,
// touched or not.
func (m *Map) Read(start, end uint64, f func(start uint64, entries []Entry)) error {
	const pageSize = 4096
	buf := make([]byte, entryBytes*min(entriesInRead, (end-start)/pageSize))
	entries := make([]Entry, len(buf)/entryBytes)
	for start < end {
		want := buf[:min(uint64(len(buf)), (end-start)/pageSize*entryBytes)]
		n, err := m.file.ReadAt(want, int64(start/pageSize*entryBytes))
		n -= n % entryBytes
		if n == 0 {
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("read %s: %w", m.file.Name(), ErrNoMemory)
			}
			return fmt.Errorf("read page map: %w", err)
		}
		got := entries[:n/entryBytes]
		for i := range got {
			got[i] = Entry(binary.NativeEndian.Uint64(buf[i*entryBytes:]))
		}
		f(start, got)
		start += uint64(len(got)) * pageSize
	}
	return nil
}

// ClearSoftDirty makes all pages of the process's address space clean: from now on what is written becomes SoftDirty. What
// is written while it works may be lost, so the process must not run. Pinned pages stay dirty. On a kernel without
// CONFIG_MEM_SOFT_DIRTY it succeeds and does nothing: see HaveSoftDirty.
func ClearSoftDirty(pid int) error {
	const softDirty = "4"
	file, err := os.OpenFile(fmt.Sprintf("/proc/%d/clear_refs", pid), os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteString(softDirty)
		err = errors.Join(err, file.Close())
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("clear soft-dirty bits of %d: %w", pid, os.ErrProcessDone)
	}
	if err != nil {
		return fmt.Errorf("clear soft-dirty bits: %w", err)
	}
	return nil
}
