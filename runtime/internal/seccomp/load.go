package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
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

// load takes libseccomp's program, puts the prologue before it and loads both into the calling thread. libseccomp would
// load it itself, but not with a prologue.
func load(filter *libseccomp.ScmpFilter, spec *specs.LinuxSeccomp) (int, error) {
	program, err := export(filter)
	if err != nil {
		return -1, fmt.Errorf("export filter: %w", err)
	}
	program = append(prologue(spec), program...)
	if len(program) > 4096 { // BPF_MAXINSNS
		return -1, fmt.Errorf("filter has %d instructions, the kernel takes 4096", len(program))
	}
	flags := kernelFlags(spec)
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	const setModeFilter = 1
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, flags, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return -1, os.NewSyscallError("seccomp", errno)
	}
	if flags&flagNewListener == 0 {
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

// prologue answers ENOSYS to system calls that are newer than the profile, which has no opinion of them. C libraries
// probe new calls and fall back on old ones when they get ENOSYS; the profile's EPERM would make them fail. Newer is
// what has a higher number than every call that the profile names, on the machine's own architecture.
func prologue(spec *specs.LinuxSeccomp) []unix.SockFilter {
	switch spec.DefaultAction {
	case specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap:
	default:
		return nil
	}
	audit, known := auditArch()
	highest := -1
	for i := range spec.Syscalls {
		for _, name := range spec.Syscalls[i].Names {
			if number, err := libseccomp.GetSyscallFromName(name); err == nil {
				highest = max(highest, int(number))
			}
		}
	}
	if !known || highest < 0 {
		return nil
	}
	const (
		loadWord = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jumpEq   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		jumpGt   = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
		jumpGe   = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		ret      = unix.BPF_RET | unix.BPF_K

		offsetNumber, offsetArch = 0, 4 // in struct seccomp_data
		x32Bit                   = 0x40000000
		retErrno                 = 0x00050000
	)
	return []unix.SockFilter{
		{Code: loadWord, K: offsetArch},
		{Code: jumpEq, K: audit, Jf: 4}, // another architecture: to the profile
		{Code: loadWord, K: offsetNumber},
		{Code: jumpGe, K: x32Bit, Jt: 2}, // x32 has the same audit value, and numbers of its own
		{Code: jumpGt, K: uint32(highest), Jf: 1},
		{Code: ret, K: retErrno | uint32(unix.ENOSYS)},
	}
}

// auditArch is the AUDIT_ARCH_* of the machine's own architecture, include/uapi/linux/audit.h.
func auditArch() (uint32, bool) {
	native, err := libseccomp.GetNativeArch()
	if err != nil {
		return 0, false
	}
	values := map[libseccomp.ScmpArch]uint32{
		libseccomp.ArchAMD64: 0xc000003e, libseccomp.ArchARM64: 0xc00000b7, libseccomp.ArchPPC64LE: 0xc0000015,
		libseccomp.ArchS390X: 0x80000016, libseccomp.ArchRISCV64: 0xc00000f3, libseccomp.ArchLOONGARCH64: 0xc0000102,
	}
	value, ok := values[native]
	return value, ok
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
