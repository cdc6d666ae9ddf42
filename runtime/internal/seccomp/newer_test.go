package seccomp

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// decide runs the prologue as the kernel does, and returns what it returned, or 0 when it fell through to the profile.
func decide(t *testing.T, program []unix.SockFilter, arch, number uint32) uint32 {
	t.Helper()
	accumulator := uint32(0)
	step := func(taken bool, i *unix.SockFilter) int {
		if taken {
			return int(i.Jt)
		}
		return int(i.Jf)
	}
	at := 0
	for at < len(program) {
		i := &program[at]
		at++
		switch i.Code {
		case loadWord:
			accumulator = map[uint32]uint32{offsetNumber: number, offsetArch: arch}[i.K]
		case jump:
			at += int(i.K)
		case jumpEq:
			at += step(accumulator == i.K, i)
		case jumpGt:
			at += step(accumulator > i.K, i)
		case jumpGe:
			at += step(accumulator >= i.K, i)
		case ret:
			return i.K
		default:
			t.Fatalf("instruction %d: unknown code %#x", at-1, i.Code)
		}
	}
	if at != len(program) {
		t.Fatalf("it jumps to %d, the profile begins at %d", at, len(program))
	}
	return 0
}

func TestNewerCallsGetENOSYSOnEveryArchitecture(t *testing.T) {
	spec := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno,
		Architectures: []specs.Arch{
			specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM, specs.ArchS390X, specs.ArchPPC64LE,
			specs.ArchRISCV64, specs.ArchMIPSEL64N32,
		},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "openat2", "socket", "no_such_call"}, Action: specs.ActAllow}},
	}
	program := prologue(spec)
	for _, name := range spec.Architectures {
		arch, err := architecture(name)
		if err != nil {
			t.Fatal(err)
		}
		audit, ok := auditArch(arch)
		if !ok {
			t.Fatalf("%s has no audit value", name)
		}
		number, err := libseccomp.GetSyscallFromNameByArch("openat2", arch)
		if err != nil {
			t.Fatal(err)
		}
		highest := uint32(number)
		if name == specs.ArchX32 {
			highest |= x32Bit
		}
		for call, want := range map[uint32]uint32{
			highest: 0, highest - 1: 0, highest + 1: retErrno | uint32(unix.ENOSYS), highest + 500: retErrno | uint32(unix.ENOSYS),
		} {
			if got := decide(t, program, audit, call); got != want {
				t.Errorf("%s: call %#x: %#x, want %#x", name, call, got, want)
			}
		}
	}
	if got := decide(t, program, 0xc0000015, 1<<20); got == 0 {
		t.Error("a listed architecture is left out")
	}
	if got := decide(t, program, 0x80000015, 1<<20); got != 0 {
		t.Errorf("an architecture that is not listed: %#x, and the profile had no say", got)
	}
	if got := decide(t, program, 0x80000016, 0); got != retErrno|uint32(unix.ENOSYS) {
		t.Errorf("s390x's unknown call: %#x", got)
	}
}

func TestX32IsJudgedByItsOwnNumbers(t *testing.T) {
	spec := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}},
	}
	for call, want := range map[uint32]uint32{0: 0, 1: retErrno | uint32(unix.ENOSYS), x32Bit: 0, x32Bit + 999: 0} {
		if got := decide(t, prologue(spec), auditX86_64, call); got != want {
			t.Errorf("x32 not listed: call %#x: %#x, want %#x", call, got, want)
		}
	}
}
