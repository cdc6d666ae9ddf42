package main

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// area is pages of one kind, with a version each.
type area struct {
	kind     string
	number   uint64 // never 0
	base     unsafe.Pointer
	versions []uint32 // by page; flags in the upper bits
	writes   uint64   // sum of the versions of our own pages: a stale table shows
	prot     int      // as it lies there; it is made readable for a check or a write
	constant bool     // not written after the start
	holes    bool     // may be punched
	shared   bool     // with the mate: the parent has the even pages, the mate the odd ones
	unforked bool     // a child does not have it
	wiped    bool     // a child has it anew, all zeros
}

const (
	zeros  = 1 << 31    // of a version: never written, or dropped since
	either = 1 << 30    // freed: what was written, or zeros
	count  = either - 1 // how often it was written
)

const (
	parent = 0
	mate   = 1
)

// fault is a page that is not what it should be, in memory that parent and children share.
type fault struct {
	found            uint32
	area             uint64
	page, at         int
	version          uint32 // wanted
	want, got        uint64
	identity, stated uint64 // the page's own words
	table            bool   // it is the table of versions that is not
}

//go:nosplit
//go:norace
func (a *area) page(i int) *page { return (*page)(unsafe.Add(a.base, i*pageSize)) }

//go:nosplit
//go:norace
func (a *area) identity(i int) uint64 { return a.number<<32 | uint64(i) }

//go:nosplit
//go:norace
func (a *area) owns(i, who int) bool { return !a.shared || i%2 == who }

func (a *area) bytes() []byte { return unsafe.Slice((*byte)(a.base), len(a.versions)*pageSize) }

// write makes the page's next version. The area is open.
//
//go:nosplit
//go:norace
func (a *area) write(i int) {
	version := a.versions[i]&count + 1
	a.versions[i] = version
	a.writes++
	a.page(i).fill(a.identity(i), uint64(version))
}

// account makes the table of versions what the writes are counted from.
//
//go:nosplit
//go:norace
func (a *area) account(who int) {
	a.writes = 0
	for i := range a.versions {
		if a.owns(i, who) {
			a.writes += uint64(a.versions[i] & count)
		}
	}
}

// drop punches a hole: zeros from here on, or, of freed pages, zeros when the kernel comes to it.
//
//go:nosplit
//go:norace
func (a *area) drop(from, to int, advice uintptr) bool {
	_, _, errno := unix.RawSyscall(unix.SYS_MADVISE, uintptr(a.base)+uintptr(from*pageSize), uintptr((to-from)*pageSize), advice)
	if errno != 0 {
		return false
	}
	for i := from; i < to; i++ {
		switch {
		case advice == unix.MADV_DONTNEED:
			a.versions[i] = a.versions[i]&count | zeros
		case a.versions[i]&zeros == 0:
			a.versions[i] |= either
		}
	}
	return true
}

// open makes it readable and writable, shut as it was.
//
//go:nosplit
//go:norace
func (a *area) open() bool { return a.protect(unix.PROT_READ | unix.PROT_WRITE) }

//go:nosplit
//go:norace
func (a *area) shut() bool { return a.protect(a.prot) }

//go:nosplit
//go:norace
func (a *area) protect(prot int) bool {
	if a.prot == unix.PROT_READ|unix.PROT_WRITE {
		return true
	}
	_, _, errno := unix.RawSyscall(unix.SYS_MPROTECT, uintptr(a.base), uintptr(len(a.versions)*pageSize), uintptr(prot))
	return errno == 0
}

// right compares every page with its version, and the table with what was written.
//
//go:nosplit
//go:norace
func (a *area) right(who int, f *fault) bool {
	if a.prot&unix.PROT_READ == 0 && !a.open() {
		f.found, f.area, f.table = 1, a.number, true
		return false
	}
	sum := uint64(0)
	for i := range a.versions {
		version := a.versions[i]
		if a.owns(i, who) {
			sum += uint64(version & count)
		}
		p := a.page(i)
		var at int
		var want uint64
		switch {
		case version&zeros != 0, version&either != 0 && p[0] == 0:
			at = p.dirt()
		default:
			at, want = p.wrong(a.identity(i), uint64(version&count))
		}
		if at >= 0 {
			f.area, f.page, f.at, f.version, f.want = a.number, i, at, version, want
			f.got, f.identity, f.stated, f.table, f.found = p[at], p[0], p[1], false, 1
			return false
		}
	}
	if sum != a.writes {
		f.area, f.table, f.want, f.got, f.found = a.number, true, a.writes, sum, 1
		return false
	}
	return a.prot&unix.PROT_READ != 0 || a.shut()
}

// tell says what a fault is: whose memory, where, what is wanted there and what is.
func (a *area) tell(f *fault, who int) error {
	process := [...]string{"", "the mate's ", "a child's "}[min(who, passing)]
	if f.table {
		return fmt.Errorf("%s%s: its pages were written %d times, and its versions say %d", process, a.kind, f.want, f.got)
	}
	wanted := fmt.Sprintf("version %d", f.version&count)
	if f.version&zeros != 0 {
		wanted = "zeros"
	}
	got := fmt.Sprintf("version %d of page %d of area %d", f.stated, uint32(f.identity), f.identity>>32)
	if f.identity == 0 && f.stated == 0 {
		got = "zeros at its start"
	}
	return fmt.Errorf("%s%s, area %d, page %d of %d, %#x: wanted %s, got %s (byte %d is %#x, not %#x)", process, a.kind, a.number,
		f.page, len(a.versions), uintptr(a.base)+uintptr(f.page*pageSize), wanted, got, f.at*8, f.got, f.want)
}
