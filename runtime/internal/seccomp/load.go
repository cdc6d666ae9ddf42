package seccomp

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// Filter flags of seccomp(2), include/uapi/linux/seccomp.h.
const (
	flagLog          = 1 << 1
	flagSpecAllow    = 1 << 2
	flagNewListener  = 1 << 3
	flagWaitKillable = 1 << 5
)

// Flags are those that the kernel gets with the filter.
func (f *Filter) Flags() uintptr { return f.flags }

// Empty tells whether there is nothing to load.
func (f *Filter) Empty() bool { return len(f.program) == 0 }

// Load loads the filter into the calling thread. It returns the descriptor of the listener when a rule notifies one,
// else -1. Without no-new-privileges it takes CAP_SYS_ADMIN. libseccomp would load its own program, but not with a
// prologue.
func (f *Filter) Load() (int, error) {
	if f.Empty() {
		return -1, nil
	}
	fprog := unix.SockFprog{Len: uint16(len(f.program)), Filter: &f.program[0]}
	const setModeFilter = 1
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, f.flags, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return -1, os.NewSyscallError("seccomp", errno)
	}
	if f.flags&flagNewListener == 0 {
		return -1, nil
	}
	return int(fd), nil
}

// kernelFlags are the flags of the spec as seccomp(2) takes them; build has checked that they are supported. Without
// any the speculative store bypass stays allowed: forbidding it costs every program dearly and is seldom meant.
func kernelFlags(spec *specs.LinuxSeccomp) (flags uintptr) {
	if spec.Flags == nil {
		flags |= flagSpecAllow
	}
	for _, flag := range spec.Flags {
		switch flag {
		case specs.LinuxSeccompFlagLog:
			flags |= flagLog
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= flagSpecAllow
		case specs.LinuxSeccompFlagWaitKillableRecv:
			flags |= flagWaitKillable
		}
	}
	if notifies(spec) {
		flags |= flagNewListener
	}
	return flags
}

// export reads the program that libseccomp generated.
func export(filter *libseccomp.ScmpFilter) (_ []unix.SockFilter, err error) {
	fd, err := unix.MemfdCreate("seccomp", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "seccomp")
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := filter.ExportBPF(f); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	code, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	const size = 8 // u16 code, u8 jt, u8 jf, u32 k
	program := make([]unix.SockFilter, 0, len(code)/size)
	for ; len(code) >= size; code = code[size:] {
		program = append(program, unix.SockFilter{
			Code: binary.NativeEndian.Uint16(code), Jt: code[2], Jf: code[3], K: binary.NativeEndian.Uint32(code[4:]),
		})
	}
	return program, nil
}
