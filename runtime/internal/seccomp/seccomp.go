// Package seccomp loads a spec's system call filter into the calling process.
package seccomp

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// Filter is a spec's filter as the kernel takes it. It holds nothing but memory. The zero Filter allows everything.
type Filter struct {
	program []unix.SockFilter
	flags   uintptr
}

// Compile makes the filter. That takes memory and system calls which the program's limits and the filter itself may
// deny; Load takes neither. noFlags is NoFlags of the spec before it went through JSON.
func Compile(spec *specs.LinuxSeccomp, noFlags bool, log *slog.Logger) (*Filter, error) {
	if spec == nil || spec.DefaultAction == "" && len(spec.Syscalls) == 0 {
		return &Filter{}, nil
	}
	if noFlags {
		profile := *spec
		profile.Flags = []specs.LinuxSeccompFlag{}
		spec = &profile
	}
	filter, err := build(spec, log)
	if err != nil {
		return nil, err
	}
	defer filter.Release()
	program, err := export(filter)
	if err != nil {
		return nil, fmt.Errorf("export filter: %w", err)
	}
	program = append(prologue(spec), program...)
	if len(program) > 4096 { // BPF_MAXINSNS
		return nil, fmt.Errorf("filter has %d instructions, the kernel takes 4096", len(program))
	}
	return &Filter{program: program, flags: kernelFlags(spec)}, nil
}

func notifies(spec *specs.LinuxSeccomp) bool {
	for _, call := range spec.Syscalls {
		if call.Action == specs.ActNotify {
			return true
		}
	}
	return false
}

func build(spec *specs.LinuxSeccomp, log *slog.Logger) (*libseccomp.ScmpFilter, error) {
	fallback, err := action(spec.DefaultAction, spec.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	if fallback == libseccomp.ActNotify {
		return nil, errors.New("SCMP_ACT_NOTIFY cannot be used as default action")
	}
	filter, err := libseccomp.NewFilter(fallback)
	if err != nil {
		return nil, fmt.Errorf("make filter: %w", err)
	}
	if err := fill(filter, spec, fallback, log); err != nil {
		filter.Release()
		return nil, err
	}
	return filter, nil
}

func fill(filter *libseccomp.ScmpFilter, spec *specs.LinuxSeccomp, fallback libseccomp.ScmpAction, log *slog.Logger) error {
	for _, name := range spec.Architectures {
		arch, err := architecture(name)
		if err != nil {
			return err
		}
		if err := filter.AddArch(arch); err != nil {
			return fmt.Errorf("add architecture %s: %w", name, err)
		}
	}
	if err := setFlags(filter, spec.Flags); err != nil {
		return err
	}
	if len(spec.Syscalls) > 8 {
		// A binary tree instead of a list; not for short lists, which libseccomp 2.5 gets wrong when they are empty.
		if err := filter.SetOptimize(2); err != nil {
			log.Debug("seccomp filter is not optimized", "error", err)
		}
	}
	// Whether no-new-privileges is set is the spec's business.
	if err := filter.SetNoNewPrivsBit(false); err != nil {
		return fmt.Errorf("set no-new-privileges attribute: %w", err)
	}
	for i := range spec.Syscalls {
		if err := addRule(filter, &spec.Syscalls[i], fallback, log); err != nil {
			return err
		}
	}
	return nil
}

// flagSync asks for the filter in every thread of the process. It is known and left out: only the thread that loads the
// filter outlives execve(2).
const flagSync specs.LinuxSeccompFlag = "SECCOMP_FILTER_FLAG_TSYNC"

// setFlags gives the flags to libseccomp, which knows what the kernel supports. kernelFlags repeats them for the load.
func setFlags(filter *libseccomp.ScmpFilter, flags []specs.LinuxSeccompFlag) error {
	if flags == nil {
		if err := filter.SetSSB(true); err != nil && !isVersionError(err) {
			return fmt.Errorf("error adding SSB flag to seccomp filter: %w", err)
		}
		return nil
	}
	for _, flag := range flags {
		var err error
		name := string(flag) // in runc's words, where they differ
		switch flag {
		case flagSync:
		case specs.LinuxSeccompFlagLog:
			name, err = "log", filter.SetLogBit(true)
		case specs.LinuxSeccompFlagSpecAllow:
			name, err = "SSB", filter.SetSSB(true)
		case specs.LinuxSeccompFlagWaitKillableRecv:
			name, err = "WaitKill", filter.SetWaitKill(true)
		default:
			err = errors.New("flag is not known")
		}
		if err != nil {
			return fmt.Errorf("error adding %s flag to seccomp filter: %w", name, err)
		}
	}
	return nil
}

func isVersionError(err error) bool {
	_, ok := errors.AsType[*libseccomp.VersionError](err)
	if ok {
		return true
	}
	_, ok = errors.AsType[libseccomp.VersionError](err)
	return ok
}

func addRule(filter *libseccomp.ScmpFilter, rule *specs.LinuxSyscall, fallback libseccomp.ScmpAction, log *slog.Logger) error {
	act, err := action(rule.Action, rule.ErrnoRet)
	if err != nil {
		return err
	}
	for i := range rule.Args { // also of a rule that changes nothing, and is not added
		if _, err := condition(&rule.Args[i]); err != nil {
			return err
		}
	}
	for _, name := range rule.Names {
		if name == "write" && act == libseccomp.ActNotify {
			// The listener's number is written to the starter with the filter loaded: nobody would answer.
			return errors.New("SCMP_ACT_NOTIFY cannot be used for the write syscall")
		}
		if act == fallback {
			continue // libseccomp refuses what changes nothing
		}
		number, err := libseccomp.GetSyscallFromName(name)
		if err != nil {
			log.Debug("ignoring unknown system call in seccomp profile", "name", name)
			continue
		}
		if err := addCall(filter, number, act, rule.Args); err != nil {
			return fmt.Errorf("add seccomp rule for %s: %w", name, err)
		}
	}
	return nil
}

// addCall adds one system call. Conditions on different arguments must all hold; libseccomp takes only one condition
// an argument, so several on the same one become rules of their own, any of which may hold.
func addCall(filter *libseccomp.ScmpFilter, number libseccomp.ScmpSyscall, act libseccomp.ScmpAction, args []specs.LinuxSeccompArg) error {
	if len(args) == 0 {
		return filter.AddRule(number, act)
	}
	conditions := make([]libseccomp.ScmpCondition, 0, len(args))
	perArgument := map[uint]int{}
	repeated := false
	for _, arg := range args {
		condition, err := condition(&arg)
		if err != nil {
			return err
		}
		conditions = append(conditions, condition)
		perArgument[arg.Index]++
		repeated = repeated || perArgument[arg.Index] > 1
	}
	if !repeated {
		return filter.AddRuleConditional(number, act, conditions)
	}
	for i := range conditions {
		if err := filter.AddRuleConditional(number, act, conditions[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

func condition(arg *specs.LinuxSeccompArg) (libseccomp.ScmpCondition, error) {
	operators := map[specs.LinuxSeccompOperator]libseccomp.ScmpCompareOp{
		specs.OpNotEqual: libseccomp.CompareNotEqual, specs.OpLessThan: libseccomp.CompareLess,
		specs.OpLessEqual: libseccomp.CompareLessOrEqual, specs.OpEqualTo: libseccomp.CompareEqual,
		specs.OpGreaterEqual: libseccomp.CompareGreaterEqual, specs.OpGreaterThan: libseccomp.CompareGreater,
		specs.OpMaskedEqual: libseccomp.CompareMaskedEqual,
	}
	operator, ok := operators[arg.Op]
	if !ok {
		return libseccomp.ScmpCondition{}, fmt.Errorf("string %s is not a valid operator for seccomp", arg.Op)
	}
	return libseccomp.MakeCondition(arg.Index, operator, arg.Value, arg.ValueTwo)
}

func action(name specs.LinuxSeccompAction, errno *uint) (libseccomp.ScmpAction, error) {
	const most = 4095 // MAX_ERRNO: the kernel makes it of anything larger
	code := int16(unix.EPERM)
	if errno != nil {
		if name == specs.ActErrno && *errno > most {
			return libseccomp.ActInvalid, fmt.Errorf("errnoRet %d of a seccomp action is above %d", *errno, most)
		}
		code = int16(*errno)
	}
	switch name {
	case specs.ActKill, specs.ActKillThread:
		return libseccomp.ActKillThread, nil
	case specs.ActKillProcess:
		return libseccomp.ActKillProcess, nil
	case specs.ActTrap:
		return libseccomp.ActTrap, nil
	case specs.ActErrno:
		return libseccomp.ActErrno.SetReturnCode(code), nil
	case specs.ActTrace:
		return libseccomp.ActTrace.SetReturnCode(code), nil
	case specs.ActAllow:
		return libseccomp.ActAllow, nil
	case specs.ActLog:
		return libseccomp.ActLog, nil
	case specs.ActNotify:
		return libseccomp.ActNotify, nil
	}
	return libseccomp.ActInvalid, fmt.Errorf("string %s is not a valid action for seccomp", name)
}

func architecture(name specs.Arch) (libseccomp.ScmpArch, error) {
	architectures := map[specs.Arch]libseccomp.ScmpArch{
		specs.ArchX86: libseccomp.ArchX86, specs.ArchX86_64: libseccomp.ArchAMD64, specs.ArchX32: libseccomp.ArchX32,
		specs.ArchARM: libseccomp.ArchARM, specs.ArchAARCH64: libseccomp.ArchARM64, specs.ArchMIPS: libseccomp.ArchMIPS,
		specs.ArchMIPS64: libseccomp.ArchMIPS64, specs.ArchMIPS64N32: libseccomp.ArchMIPS64N32,
		specs.ArchMIPSEL: libseccomp.ArchMIPSEL, specs.ArchMIPSEL64: libseccomp.ArchMIPSEL64,
		specs.ArchMIPSEL64N32: libseccomp.ArchMIPSEL64N32, specs.ArchPPC: libseccomp.ArchPPC,
		specs.ArchPPC64: libseccomp.ArchPPC64, specs.ArchPPC64LE: libseccomp.ArchPPC64LE,
		specs.ArchS390: libseccomp.ArchS390, specs.ArchS390X: libseccomp.ArchS390X, specs.ArchPARISC: libseccomp.ArchPARISC,
		specs.ArchPARISC64: libseccomp.ArchPARISC64, specs.ArchRISCV64: libseccomp.ArchRISCV64,
		specs.ArchLOONGARCH64: libseccomp.ArchLOONGARCH64,
	}
	arch, ok := architectures[name]
	if !ok {
		return libseccomp.ArchInvalid, fmt.Errorf("string %s is not a valid arch for seccomp", name)
	}
	return arch, nil
}
