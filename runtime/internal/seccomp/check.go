package seccomp

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
)

// Check says what Compile would refuse, without a process that needs the filter. nil is fine: no filter.
func Check(spec *specs.LinuxSeccomp) error {
	if spec == nil || spec.DefaultAction == "" && len(spec.Syscalls) == 0 {
		return nil
	}
	if notifies(spec) && spec.ListenerPath == "" {
		return errors.New("seccomp listenerPath is not set, and a rule notifies")
	}
	filter, err := build(spec, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	filter.Release()
	return nil
}

// NoFlags tells whether the spec has a list of no flags, which asks for none. Without a list it gets the default ones. JSON
// that is made of the spec cannot tell the two apart, so whoever stores one stores this too.
func NoFlags(spec *specs.LinuxSeccomp) bool {
	return spec != nil && spec.Flags != nil && len(spec.Flags) == 0
}

// Actions are what a rule of a profile may do; with Operators, Archs and Flags it is what the features document lists.
func Actions() []string {
	return names([]specs.LinuxSeccompAction{
		specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread,
		specs.ActLog, specs.ActNotify, specs.ActTrace, specs.ActTrap,
	})
}

// Operators compare an argument of a system call.
func Operators() []string {
	return names([]specs.LinuxSeccompOperator{
		specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpLessEqual,
		specs.OpLessThan, specs.OpMaskedEqual, specs.OpNotEqual,
	})
}

// Archs are those that libseccomp can filter for.
func Archs() []string {
	return names([]specs.Arch{
		specs.ArchAARCH64, specs.ArchARM, specs.ArchLOONGARCH64, specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL,
		specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchRISCV64, specs.ArchS390,
		specs.ArchS390X, specs.ArchX32, specs.ArchX86, specs.ArchX86_64,
	})
}

// Flags are those of seccomp(2) that are known here.
func Flags() []string {
	return []string{
		string(specs.LinuxSeccompFlagLog), string(specs.LinuxSeccompFlagSpecAllow), string(flagSync),
		string(specs.LinuxSeccompFlagWaitKillableRecv),
	}
}

// SupportedFlags are those that this kernel and this libseccomp take.
func SupportedFlags() []string {
	filter, err := libseccomp.NewFilter(libseccomp.ActAllow)
	if err != nil {
		return nil
	}
	defer filter.Release()
	return slices.DeleteFunc(Flags(), func(flag string) bool {
		return setFlags(filter, []specs.LinuxSeccompFlag{specs.LinuxSeccompFlag(flag)}) != nil
	})
}

// Version is libseccomp's.
func Version() string {
	major, minor, micro := libseccomp.GetLibraryVersion()
	return fmt.Sprintf("%d.%d.%d", major, minor, micro)
}

func names[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, name := range list {
		out[i] = string(name)
	}
	slices.Sort(out)
	return out
}
