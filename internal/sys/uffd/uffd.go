// Package uffd is userfaultfd(2): page faults of a process answered by another one, and writes of it seen by another one.
//
// A descriptor belongs to the address space of the process that opened it, wherever it was sent since. It is opened
// (or received), told what it is for (API), given areas (Register), and then read for events (Read, Parse) and used to
// fill (Copy, Zeropage), wake (Wake) and write-protect (WriteProtect) those areas. Closing its last copy anywhere lets
// the areas go: what was missing there is zero from then on.
package uffd

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FD is a userfaultfd. It is a plain number, because the number itself matters: it can be one in another process's table.
// Whoever got it closes it, and lets nobody use it afterwards.
type FD int

// UserModeOnly is a flag of Open, besides unix.O_CLOEXEC and unix.O_NONBLOCK: faults of the kernel fail, and no rights are
// needed (UFFD_USER_MODE_ONLY, Linux 5.11).
const UserModeOnly = 1

// Features that API asks for.
const (
	FeatureWP            = 1 << 0  // UFFD_FEATURE_PAGEFAULT_FLAG_WP
	FeatureFork          = 1 << 1  // UFFD_FEATURE_EVENT_FORK; needs CAP_SYS_PTRACE
	FeatureRemap         = 1 << 2  // UFFD_FEATURE_EVENT_REMAP
	FeatureRemove        = 1 << 3  // UFFD_FEATURE_EVENT_REMOVE
	FeatureMissingHuge   = 1 << 4  // UFFD_FEATURE_MISSING_HUGETLBFS
	FeatureMissingShmem  = 1 << 5  // UFFD_FEATURE_MISSING_SHMEM
	FeatureUnmap         = 1 << 6  // UFFD_FEATURE_EVENT_UNMAP
	FeatureThreadID      = 1 << 8  // UFFD_FEATURE_THREAD_ID
	FeatureWPHugeShmem   = 1 << 12 // UFFD_FEATURE_WP_HUGETLBFS_SHMEM (Linux 5.19)
	FeatureWPUnpopulated = 1 << 13 // UFFD_FEATURE_WP_UNPOPULATED (Linux 6.4)
	FeatureWPAsync       = 1 << 15 // UFFD_FEATURE_WP_ASYNC (Linux 6.7)
)

// Modes of Register.
const (
	RegisterMissing = 1 << 0 // UFFDIO_REGISTER_MODE_MISSING
	RegisterWP      = 1 << 1 // UFFDIO_REGISTER_MODE_WP
)

// Modes of Copy and Zeropage.
const (
	DontWake = 1 << 0 // UFFDIO_COPY_MODE_DONTWAKE, UFFDIO_ZEROPAGE_MODE_DONTWAKE
	CopyWP   = 1 << 1 // UFFDIO_COPY_MODE_WP
)

// Requests: _IOWR(0xAA, nr, struct), and _IOR for those two whose direction the kernel's authors regret.
const (
	ioctlAPI          = 0xc018aa3f
	ioctlRegister     = 0xc020aa00
	ioctlUnregister   = 0x8010aa01
	ioctlWake         = 0x8010aa02
	ioctlCopy         = 0xc028aa03
	ioctlZeropage     = 0xc020aa04
	ioctlWriteProtect = 0xc018aa06
)

// apiVersion is UFFD_API.
const apiVersion = 0xaa

// Open makes a userfaultfd of this process. EPERM without CAP_SYS_PTRACE, unless flags hold UserModeOnly or
// vm.unprivileged_userfaultfd is 1; ENOSYS where the kernel has none.
func Open(flags int) (FD, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, uintptr(flags), 0, 0)
	if errno != 0 {
		return -1, os.NewSyscallError("userfaultfd", errno)
	}
	return FD(fd), nil
}

// Supported are the features that this kernel knows. It opens a userfaultfd for the question, with the errors of Open.
func Supported() (uint64, error) {
	fd, err := Open(unix.O_CLOEXEC | UserModeOnly)
	if err != nil {
		return 0, err
	}
	defer func() { _ = fd.Close() }()
	return fd.API(0)
}

// API is the handshake: the descriptor is of no use before it, and takes one only. It returns what the kernel has on
// offer. EINVAL when a feature is unknown to it (the descriptor then takes another try), EPERM for FeatureFork without
// CAP_SYS_PTRACE.
func (fd FD) API(features uint64) (supported uint64, err error) {
	arg := struct{ api, features, ioctls uint64 }{api: apiVersion, features: features}
	if errno := fd.ioctl(ioctlAPI, unsafe.Pointer(&arg)); errno != 0 {
		return 0, os.NewSyscallError("ioctl(UFFDIO_API)", errno)
	}
	return arg.features, nil
}

// Register gives the descriptor an area, which may span several mappings and has to have one at its start. EBUSY when
// another userfaultfd has it already, EINVAL for a mapping that cannot be registered, or none; ESRCH or ENOMEM when the
// address space is gone.
func (fd FD) Register(start, bytes, mode uint64) error {
	arg := struct{ start, bytes, mode, ioctls uint64 }{start: start, bytes: bytes, mode: mode}
	return named("ioctl(UFFDIO_REGISTER)", fd.ioctl(ioctlRegister, unsafe.Pointer(&arg)))
}

// Unregister takes an area back; what waits for a fault there is woken.
func (fd FD) Unregister(start, bytes uint64) error {
	arg := span{start, bytes}
	return named("ioctl(UFFDIO_UNREGISTER)", fd.ioctl(ioctlUnregister, unsafe.Pointer(&arg)))
}

// Copy puts pages where nothing is mapped yet, and wakes what waits for them unless mode says DontWake. Both dst and
// len(src) are multiples of the page size, src is not empty. It returns how many bytes are in place, and a plain
// unix.Errno:
//
//	EAGAIN with n > 0    a part is done: go on behind it, to learn what stopped it
//	EAGAIN with n == 0   the address space is changing: read the event, look the address up again
//	EEXIST               the first page is there already; whoever waits for it is NOT woken
//	ENOENT               the range is not in one registered mapping: try halves; for a single page, it is gone
//	ESRCH                the process is gone
func (fd FD) Copy(dst uint64, src []byte, mode uint64) (n int, err error) {
	arg := struct {
		dst    uint64
		src    unsafe.Pointer
		bytes  uint64
		mode   uint64
		copied int64
	}{dst: dst, src: unsafe.Pointer(unsafe.SliceData(src)), bytes: uint64(len(src)), mode: mode}
	return filled(arg.bytes, fd.ioctl(ioctlCopy, unsafe.Pointer(&arg)), &arg.copied)
}

// Zeropage is Copy of zeros: it maps the shared zero page.
func (fd FD) Zeropage(start, bytes, mode uint64) (n int, err error) {
	arg := struct {
		span
		mode   uint64
		zeroed int64
	}{span: span{start, bytes}, mode: mode}
	return filled(bytes, fd.ioctl(ioctlZeropage, unsafe.Pointer(&arg)), &arg.zeroed)
}

// filled reads the kernel's answer: its count is an errno when negative, and untouched when the call came to nothing.
func filled(wanted uint64, errno unix.Errno, count *int64) (int, error) {
	switch {
	case errno == 0:
		return int(wanted), nil
	case *count > 0:
		return int(*count), errno
	default:
		return 0, errno
	}
}

// Wake lets threads that wait for a fault in the area try again. The error is a plain unix.Errno.
func (fd FD) Wake(start, bytes uint64) error {
	arg := span{start, bytes}
	if errno := fd.ioctl(ioctlWake, unsafe.Pointer(&arg)); errno != 0 {
		return errno
	}
	return nil
}

// WriteProtect protects what is mapped in the area, or with FeatureWPUnpopulated all of it; with protect false it lets
// writes through and wakes who waits. ENOENT when the area is not registered for it, EAGAIN while the address space is
// changing. The error is a plain unix.Errno.
func (fd FD) WriteProtect(start, bytes uint64, protect bool) error {
	arg := struct {
		span
		mode uint64
	}{span: span{start, bytes}}
	if protect {
		arg.mode = 1 // UFFDIO_WRITEPROTECT_MODE_WP
	}
	if errno := fd.ioctl(ioctlWriteProtect, unsafe.Pointer(&arg)); errno != 0 {
		return errno
	}
	return nil
}

// Close gives this copy of the descriptor up.
func (fd FD) Close() error { return os.NewSyscallError("close", unix.Close(int(fd))) }

// span is struct uffdio_range.
type span struct{ start, bytes uint64 }

func (fd FD) ioctl(request uintptr, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	return errno
}

func named(call string, errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return os.NewSyscallError(call, errno)
}
