package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a program is linked with. They are written through areas only.
var (
	initialised = [64 * words]uint64{0: 1} // in .data, as it is not all zeros
	zeroed      [64 * words]uint64         // in .bss
)

const (
	readWrite = unix.PROT_READ | unix.PROT_WRITE
	private   = unix.MAP_PRIVATE | unix.MAP_ANON
	hugePage  = 2 << 20
)

// makeAreas makes all of them; the small ones, each of which counts as an area, are the last.
func (k *kinds) makeAreas() error {
	pages := k.megabytes << 20 / pageSize
	return errors.Join(
		k.anonymous("anonymous", pages, 1, area{holes: true}),
		k.anonymous("sparse", 4*pages, 16, area{holes: true}),
		k.anonymous("never written", pages, 0, area{constant: true}),
		k.anonymous("written once", 256, 1, area{constant: true}),
		k.anonymous("locked", 64, 1, area{}),
		k.anonymous("moving", 512, 1, area{holes: true}),
		k.anonymous("passing", 128, 1, area{holes: true}),
		k.anonymous("wiped on fork", 64, 1, area{wiped: true}),
		k.anonymous("unreadable", 64, 2, area{}),
		k.anonymous("read-only", 64, 1, area{}),
		k.transparentHuge(pages),
		k.hugetlb("hugetlb", unix.MAP_PRIVATE),
		k.growing(),
		k.heap(pages/2),
		k.brk(256),
		k.stack(),
		k.linked(),
		k.privateFile("private file", filepath.Join(k.dir, "private")),
		k.privateFile("private tmpfs file", filepath.Join(k.shm, "private")),
		k.privateDescriptor("zero device", func() (int, error) { return unix.Open("/dev/zero", unix.O_RDWR|unix.O_CLOEXEC, 0) }),
		k.privateDescriptor("private memfd", memfd),
		k.makeShared(),
		k.furnish(),
		k.smallAreas(),
	)
}

// add makes an area known; every n-th page of it is written, none if n is 0. The memory can be read and written, and is all
// zeros.
func (k *kinds) add(kind string, base unsafe.Pointer, pages, every int, a area) {
	a.kind, a.base, a.prot, a.number = kind, base, readWrite, uint64(len(k.areas)+1)
	if a.versions == nil {
		a.versions = make([]uint32, pages)
	}
	for i := range a.versions {
		a.versions[i] = zeros
		if every > 0 && i%every == 0 {
			a.write(i)
		}
	}
	a.account(parent)
	k.areas = append(k.areas, &a)
}

// named is the first area of a kind, nil where the workload does without.
func (k *kinds) named(kind string) *area {
	for _, a := range k.areas {
		if a.kind == kind {
			return a
		}
	}
	return nil
}

// furnish does to areas what is done to memory that is written already.
func (k *kinds) furnish() error {
	k.moving, k.passing = k.named("moving"), k.named("passing")
	for kind, prot := range map[string]int{"unreadable": unix.PROT_NONE, "read-only": unix.PROT_READ} {
		if a := k.named(kind); a != nil {
			if a.prot = prot; !a.shut() {
				return fmt.Errorf("protect %s", kind)
			}
		}
	}
	if a := k.named("wiped on fork"); a != nil {
		if err := unix.Madvise(a.bytes(), unix.MADV_WIPEONFORK); err != nil {
			return fmt.Errorf("have memory wiped on fork: %w", err)
		}
	}
	if a := k.named("locked"); a != nil {
		return os.NewSyscallError("mlock", unix.Mlock(a.bytes()))
	}
	return nil
}

func (k *kinds) anonymous(kind string, pages, every int, a area) error {
	return k.mapped(kind, pages, every, private, a)
}

func (k *kinds) mapped(kind string, pages, every, flags int, a area) error {
	if !k.wants(kind) {
		return nil
	}
	base, err := unix.MmapPtr(-1, 0, nil, uintptr(pages*pageSize), readWrite, flags)
	if err != nil {
		return fmt.Errorf("map %s: %w", kind, err)
	}
	k.add(kind, base, pages, every, a)
	return nil
}

func (k *kinds) transparentHuge(pages int) error {
	if !k.wants("transparent huge") {
		return nil
	}
	base, err := unix.MmapPtr(-1, 0, nil, uintptr(pages*pageSize+hugePage), readWrite, private)
	if err != nil {
		return err
	}
	base = unsafe.Add(base, -uintptr(base)&(hugePage-1))
	// A kernel without them keeps the pages small.
	_ = unix.Madvise(unsafe.Slice((*byte)(base), pages*pageSize), unix.MADV_HUGEPAGE)
	k.add("transparent huge", base, pages, 1, area{holes: true})
	return nil
}

// hugetlb is there where the machine has huge pages set aside.
func (k *kinds) hugetlb(kind string, flags int) error {
	err := k.mapped(kind, 2*hugePage/pageSize, 1, flags|unix.MAP_ANON|unix.MAP_HUGETLB, area{unforked: true})
	if errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	// A fork would need as many again, and the first who finds none left is killed.
	if a := k.named(kind); a != nil {
		return unix.Madvise(a.bytes(), unix.MADV_DONTFORK)
	}
	return err
}

// growing is an area as the kernel's own stacks are, which grows downward when what lies below is touched.
func (k *kinds) growing() error {
	const pages, first = 64, 4
	if !k.wants("growing") {
		return nil
	}
	// What lies below is ours, or there might be no room.
	room, err := unix.MmapPtr(-1, 0, nil, 1024*pageSize, unix.PROT_NONE, private)
	if err != nil {
		return err
	}
	if err := unix.MunmapPtr(room, 1024*pageSize); err != nil {
		return err
	}
	top := unsafe.Add(room, 1024*pageSize)
	_, err = unix.MmapPtr(-1, 0, unsafe.Add(top, -first*pageSize), first*pageSize, readWrite,
		private|unix.MAP_GROWSDOWN|unix.MAP_FIXED_NOREPLACE)
	if err != nil {
		return fmt.Errorf("map growing: %w", err)
	}
	base := unsafe.Add(top, -pages*pageSize)
	for at := pages - 1; at >= 0; at-- {
		*(*uint64)(unsafe.Add(base, at*pageSize)) = 0
	}
	k.add("growing", base, pages, 1, area{})
	return nil
}

// heap is of Go's own.
func (k *kinds) heap(pages int) error {
	if k.wants("heap") {
		k.add("heap", whole(make([]uint64, (pages+1)*words)), pages, 1, area{})
	}
	return nil
}

// whole is the first whole page of a slice.
func whole(s []uint64) unsafe.Pointer {
	base := unsafe.Pointer(unsafe.SliceData(s))
	return unsafe.Add(base, -uintptr(base)&(pageSize-1))
}

// brk is the heap that the kernel knows of.
func (k *kinds) brk(pages int) error {
	if !k.wants("brk") {
		return nil
	}
	now, _, _ := unix.RawSyscall(unix.SYS_BRK, 0, 0, 0)
	base := (now + pageSize - 1) &^ (pageSize - 1)
	end := base + uintptr(pages*pageSize)
	if got, _, _ := unix.RawSyscall(unix.SYS_BRK, end, 0, 0); got != end {
		return fmt.Errorf("set brk to %#x: it is %#x", end, got)
	}
	k.add("brk", pointer(base), pages, 1, area{})
	return nil
}

// pointer is to memory that is not Go's.
func pointer(address uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&address)) }

// stack is the process' own, far below where its first thread is at work: it grows when it is touched.
func (k *kinds) stack() error {
	if !k.wants("stack") {
		return nil
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	found := regexp.MustCompile(`-([0-9a-f]+) .*\[stack\]`).FindSubmatch(maps)
	if found == nil {
		return errors.New("there is no stack")
	}
	end, err := strconv.ParseUint(string(found[1]), 16, 64)
	if err != nil {
		return err
	}
	k.add("stack", pointer(uintptr(end-1<<20)), 64, 1, area{})
	return nil
}

func (k *kinds) linked() error {
	initialised[0] = 0
	if k.wants("data") {
		k.add("data", whole(initialised[:]), 63, 1, area{})
	}
	if k.wants("bss") {
		k.add("bss", whole(zeroed[:]), 63, 1, area{})
	}
	return nil
}

// privateFile is a mapping of which a third is the file's still, another written once, and the rest written all the time.
func (k *kinds) privateFile(kind, path string) error {
	const pages = 96
	if !k.wants(kind) {
		return nil
	}
	// What the file has is what the area's pages are in their first version.
	file, err := k.file(path, pages)
	if err != nil {
		return err
	}
	defer file.Close()
	shared, err := unix.Mmap(int(file.Fd()), 0, pages*pageSize, readWrite, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(shared)
	base, err := unix.MmapPtr(int(file.Fd()), 0, nil, pages*pageSize, readWrite, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	for part, constant := range []bool{true, true, false} {
		from := part * pages / 3 * pageSize
		k.add(kind, unsafe.Pointer(&shared[from]), pages/3, 1, area{constant: constant})
		a := k.areas[len(k.areas)-1]
		a.base = unsafe.Add(base, from)
		for i := range a.versions {
			if part > 0 {
				a.write(i)
			}
		}
	}
	return nil
}

// privateDescriptor is a private mapping of something that is all zeros.
func (k *kinds) privateDescriptor(kind string, open func() (fd int, err error)) error {
	if !k.wants(kind) {
		return nil
	}
	fd, err := open()
	if err != nil {
		return fmt.Errorf("open %s: %w", kind, err)
	}
	defer unix.Close(fd)
	base, err := unix.MmapPtr(fd, 0, nil, sharedPages*pageSize, readWrite, unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("map %s: %w", kind, err)
	}
	k.add(kind, base, sharedPages, 2, area{})
	return nil
}

// smallAreas are every other page of one mapping, and the pages between them: their permissions keep them apart.
func (k *kinds) smallAreas() error {
	if k.small == 0 || !k.wants("small") {
		return nil
	}
	base, err := unix.MmapPtr(-1, 0, nil, uintptr(k.small*pageSize), readWrite, private)
	if err != nil {
		return err
	}
	for i := range k.small {
		k.add("small", unsafe.Add(base, i*pageSize), 1, 1, area{constant: i%2 == 1})
		if a := k.areas[len(k.areas)-1]; a.constant {
			if a.prot = unix.PROT_READ; !a.shut() {
				return fmt.Errorf("protect small area %d of %d", i, k.small)
			}
		}
	}
	return nil
}

// remap moves an area, and has it grow and shrink.
func remap(a *area) error {
	const least, most = 64, 512
	if a == nil {
		return nil
	}
	had := len(a.versions)
	pages := min(max(least, had+rand.IntN(65)-32), most)
	to, err := unix.MmapPtr(-1, 0, nil, uintptr(pages*pageSize), unix.PROT_NONE, private)
	if err != nil {
		return err
	}
	a.base, err = unix.MremapPtr(a.base, uintptr(had*pageSize), to, uintptr(pages*pageSize), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED)
	if err != nil {
		return fmt.Errorf("remap: %w", err)
	}
	a.versions = a.versions[:pages]
	for i := had; i < pages; i++ {
		a.versions[i] |= zeros
	}
	a.account(parent)
	return nil
}

// renew puts a new area in place of an old one, elsewhere.
func renew(a *area) error {
	if a == nil {
		return nil
	}
	size := uintptr(len(a.versions) * pageSize)
	base, err := unix.MmapPtr(-1, 0, nil, size, readWrite, private)
	if err != nil {
		return err
	}
	if err := unix.MunmapPtr(a.base, size); err != nil {
		return err
	}
	a.base = base
	for i := range a.versions {
		a.versions[i] = a.versions[i]&count | zeros
		if rand.IntN(2) == 0 {
			a.write(i)
		}
	}
	return nil
}
