package seccomp

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// The instructions of the prologue, and struct seccomp_data, which it reads.
const (
	loadWord = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	jump     = unix.BPF_JMP | unix.BPF_JA
	jumpEq   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	jumpGt   = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	jumpGe   = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	ret      = unix.BPF_RET | unix.BPF_K

	offsetNumber, offsetArch = 0, 4
	retErrno                 = 0x00050000
	// x32Bit marks the calls of x32, which has the audit value of x86_64 and numbers of its own.
	x32Bit = 0x40000000
)

// bounds are the highest system calls that a profile names on machines of one audit value. A value of -1 is none.
type bounds struct {
	audit        uint32
	highest, x32 int
	// s390 replaces the number of a call that it does not know by 0, which is setup(2), and used by nobody.
	zeroIsNewer bool
}

// prologue answers ENOSYS to system calls that are newer than the profile, which has no opinion of them. C libraries
// probe new calls and fall back on old ones when they get ENOSYS; the profile's EPERM would make them fail. Newer is
// what has a higher number than every call that the profile names, on each of its architectures and the machine's own.
func prologue(spec *specs.LinuxSeccomp) []unix.SockFilter {
	switch spec.DefaultAction {
	case specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap:
	default:
		return nil
	}
	var sections []unix.SockFilter
	for _, b := range allBounds(spec) {
		sections = append(sections, b.section()...)
	}
	if len(sections) == 0 {
		return nil
	}
	// A section that has no answer jumps behind the last: how far, is known only now.
	for i := range sections {
		if sections[i].Code == jump {
			sections[i].K = uint32(len(sections) - i - 1)
		}
	}
	return append([]unix.SockFilter{{Code: loadWord, K: offsetArch}}, sections...)
}

// section decides on the calls of one audit value; those of another step over it.
func (b *bounds) section() []unix.SockFilter {
	code := []unix.SockFilter{{Code: loadWord, K: offsetNumber}}
	if b.zeroIsNewer {
		code = append(code, unix.SockFilter{Code: jumpEq, K: 0, Jf: 1}, enosys())
	}
	if b.audit == auditX86_64 {
		x32 := newer(b.x32)
		code = append(code, unix.SockFilter{Code: jumpGe, K: x32Bit, Jf: uint8(len(x32))})
		code = append(code, x32...)
	}
	code = append(code, newer(b.highest)...)
	return append([]unix.SockFilter{{Code: jumpEq, K: b.audit, Jf: uint8(len(code))}}, code...)
}

// newer ends the section: with ENOSYS for a call above the highest, else with a jump to the profile.
func newer(highest int) []unix.SockFilter {
	if highest < 0 {
		return []unix.SockFilter{{Code: jump}}
	}
	return []unix.SockFilter{{Code: jumpGt, K: uint32(highest), Jf: 1}, enosys(), {Code: jump}}
}

func enosys() unix.SockFilter { return unix.SockFilter{Code: ret, K: retErrno | uint32(unix.ENOSYS)} }

// allBounds lists the architectures in the order of the profile, the machine's own first: engines leave it out at times.
func allBounds(spec *specs.LinuxSeccomp) []bounds {
	var archs []libseccomp.ScmpArch
	if native, err := libseccomp.GetNativeArch(); err == nil {
		archs = append(archs, native)
	}
	for _, name := range spec.Architectures {
		if arch, err := architecture(name); err == nil && !slices.Contains(archs, arch) {
			archs = append(archs, arch)
		}
	}
	var list []bounds
	for _, arch := range archs {
		audit, known := auditArch(arch)
		highest := highestCall(spec, arch)
		if !known || highest < 0 {
			continue
		}
		i := slices.IndexFunc(list, func(b bounds) bool { return b.audit == audit })
		if i < 0 {
			i = len(list)
			list = append(list, bounds{audit: audit, highest: -1, x32: -1})
		}
		switch arch {
		case libseccomp.ArchX32:
			list[i].x32 = highest | x32Bit
		case libseccomp.ArchS390, libseccomp.ArchS390X:
			list[i].highest, list[i].zeroIsNewer = highest, true
		default:
			list[i].highest = highest
		}
	}
	return list
}

// highestCall is -1 when the profile names no call of the architecture. libseccomp's numbers below zero stand for calls
// that only others have.
func highestCall(spec *specs.LinuxSeccomp, arch libseccomp.ScmpArch) int {
	highest := -1
	for i := range spec.Syscalls {
		for _, name := range spec.Syscalls[i].Names {
			if number, err := libseccomp.GetSyscallFromNameByArch(name, arch); err == nil {
				highest = max(highest, int(number))
			}
		}
	}
	return highest
}

// auditX86_64 is the one audit value that two architectures share.
const auditX86_64 = 0xc000003e

// auditArch is the AUDIT_ARCH_* of an architecture, include/uapi/linux/audit.h.
func auditArch(arch libseccomp.ScmpArch) (uint32, bool) {
	values := map[libseccomp.ScmpArch]uint32{
		libseccomp.ArchX86: 0x40000003, libseccomp.ArchAMD64: auditX86_64, libseccomp.ArchX32: auditX86_64,
		libseccomp.ArchARM: 0x40000028, libseccomp.ArchARM64: 0xc00000b7,
		libseccomp.ArchMIPS: 0x00000008, libseccomp.ArchMIPS64: 0x80000008, libseccomp.ArchMIPS64N32: 0xa0000008,
		libseccomp.ArchMIPSEL: 0x40000008, libseccomp.ArchMIPSEL64: 0xc0000008, libseccomp.ArchMIPSEL64N32: 0xe0000008,
		libseccomp.ArchPPC: 0x00000014, libseccomp.ArchPPC64: 0x80000015, libseccomp.ArchPPC64LE: 0xc0000015,
		libseccomp.ArchS390: 0x00000016, libseccomp.ArchS390X: 0x80000016,
		libseccomp.ArchRISCV64: 0xc00000f3, libseccomp.ArchLOONGARCH64: 0xc0000102,
	}
	value, ok := values[arch]
	return value, ok
}
