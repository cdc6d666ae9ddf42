// Package attribute sets what a process inherits by execve(2) and no namespace holds: its scheduler, priorities,
// personality, memory policy, limits and CPU affinity.
package attribute

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// SetScheduler applies the scheduling policy to the calling thread; nil leaves it.
func SetScheduler(s *specs.Scheduler) error {
	if s == nil {
		return nil
	}
	policies := map[specs.LinuxSchedulerPolicy]uint32{
		specs.SchedOther: unix.SCHED_NORMAL, specs.SchedFIFO: unix.SCHED_FIFO, specs.SchedRR: unix.SCHED_RR,
		specs.SchedBatch: unix.SCHED_BATCH, specs.SchedISO: 4, specs.SchedIdle: unix.SCHED_IDLE,
		specs.SchedDeadline: unix.SCHED_DEADLINE,
	}
	policy, ok := policies[s.Policy]
	if !ok {
		return fmt.Errorf("invalid scheduler policy: %s", s.Policy)
	}
	attr := &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: policy, Nice: s.Nice, Priority: uint32(s.Priority),
		Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
	}
	for _, name := range s.Flags {
		flag, ok := schedulerFlags()[name]
		if !ok {
			return fmt.Errorf("invalid scheduler flag: %s", name)
		}
		attr.Flags |= flag
	}
	if err := unix.SchedSetAttr(0, attr, 0); err != nil {
		return fmt.Errorf("set scheduler: %w", err)
	}
	return nil
}

// IsSchedulerFlag tells whether the flag is one of sched_setattr(2).
func IsSchedulerFlag(name specs.LinuxSchedulerFlag) bool {
	_, ok := schedulerFlags()[name]
	return ok
}

func schedulerFlags() map[specs.LinuxSchedulerFlag]uint64 {
	return map[specs.LinuxSchedulerFlag]uint64{
		specs.SchedFlagResetOnFork: unix.SCHED_FLAG_RESET_ON_FORK, specs.SchedFlagReclaim: unix.SCHED_FLAG_RECLAIM,
		specs.SchedFlagDLOverrun: unix.SCHED_FLAG_DL_OVERRUN, specs.SchedFlagKeepPolicy: unix.SCHED_FLAG_KEEP_POLICY,
		specs.SchedFlagKeepParams: unix.SCHED_FLAG_KEEP_PARAMS, specs.SchedFlagUtilClampMin: unix.SCHED_FLAG_UTIL_CLAMP_MIN,
		specs.SchedFlagUtilClampMax: unix.SCHED_FLAG_UTIL_CLAMP_MAX,
	}
}

// SetIOPriority applies the I/O priority to the process group; nil leaves it.
func SetIOPriority(p *specs.LinuxIOPriority) error {
	if p == nil {
		return nil
	}
	classes := map[specs.IOPriorityClass]int{
		specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3,
	}
	class, ok := classes[p.Class]
	if !ok {
		return fmt.Errorf("invalid io priority class: %s", p.Class)
	}
	// The value's layout is in include/uapi/linux/ioprio.h.
	const whoProcessGroup, classShift = 2, 13
	value := class<<classShift | p.Priority
	if _, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_SET, whoProcessGroup, 0, uintptr(value)); errno != 0 {
		return fmt.Errorf("set io priority: %w", errno)
	}
	return nil
}

// SetPersonality applies the execution domain; nil leaves it.
func SetPersonality(p *specs.LinuxPersonality) error {
	if p == nil {
		return nil
	}
	domains := map[specs.LinuxPersonalityDomain]uintptr{specs.PerLinux: 0, specs.PerLinux32: 8}
	domain, ok := domains[p.Domain]
	if !ok {
		return fmt.Errorf("invalid personality domain %s", p.Domain)
	}
	if _, _, errno := unix.Syscall(unix.SYS_PERSONALITY, domain, 0, 0); errno != 0 {
		return fmt.Errorf("set personality: %w", errno)
	}
	return nil
}

// SetMemoryPolicy applies the NUMA policy to the calling thread; nil leaves it.
func SetMemoryPolicy(p *specs.LinuxMemoryPolicy) error {
	if p == nil {
		return nil
	}
	modes := map[specs.MemoryPolicyModeType]int{
		specs.MpolDefault: unix.MPOL_DEFAULT, specs.MpolPreferred: unix.MPOL_PREFERRED, specs.MpolBind: unix.MPOL_BIND,
		specs.MpolInterleave: unix.MPOL_INTERLEAVE, specs.MpolLocal: unix.MPOL_LOCAL,
		specs.MpolPreferredMany: unix.MPOL_PREFERRED_MANY, specs.MpolWeightedInterleave: unix.MPOL_WEIGHTED_INTERLEAVE,
	}
	flags := map[specs.MemoryPolicyFlagType]int{
		specs.MpolFStaticNodes: unix.MPOL_F_STATIC_NODES, specs.MpolFRelativeNodes: unix.MPOL_F_RELATIVE_NODES,
		specs.MpolFNumaBalancing: unix.MPOL_F_NUMA_BALANCING,
	}
	mode, ok := modes[p.Mode]
	if !ok {
		return fmt.Errorf("invalid memory policy mode %q", p.Mode)
	}
	for _, name := range p.Flags {
		flag, ok := flags[name]
		if !ok {
			return fmt.Errorf("invalid memory policy flag %q", name)
		}
		mode |= flag
	}
	var nodes *unix.CPUSet
	if p.Nodes != "" {
		set, err := ParseSet(p.Nodes)
		if err != nil {
			return fmt.Errorf("parse memory policy nodes: %w", err)
		}
		nodes = set
	}
	if err := unix.SetMemPolicy(mode, nodes); err != nil {
		return fmt.Errorf("set memory policy: %w", err)
	}
	return nil
}

// SetRlimits sets the limits of process pid. The starter does it for its child, which may have lost the right to.
func SetRlimits(pid int, limits []specs.POSIXRlimit) error {
	for _, l := range limits {
		kind, ok := rlimits()[l.Type]
		if !ok {
			return fmt.Errorf("wrong rlimit value: %s", l.Type)
		}
		if err := unix.Prlimit(pid, kind, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return fmt.Errorf("set %s to %d:%d: %w", l.Type, l.Soft, l.Hard, err)
		}
	}
	return nil
}

// HardLimit is this process's own hard limit.
func HardLimit(name string) (uint64, error) {
	kind, ok := rlimits()[name]
	if !ok {
		return 0, fmt.Errorf("wrong rlimit value: %s", name)
	}
	var own unix.Rlimit
	if err := unix.Getrlimit(kind, &own); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	return own.Max, nil
}

func rlimits() map[string]int {
	return map[string]int{
		"RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_DATA": unix.RLIMIT_DATA,
		"RLIMIT_STACK": unix.RLIMIT_STACK, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_RSS": unix.RLIMIT_RSS,
		"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
		"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
		"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
		"RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	}
}

// ParseSet reads a list like "0-3,7" of CPUs or nodes.
func ParseSet(list string) (*unix.CPUSet, error) {
	set := new(unix.CPUSet)
	limit := int(unsafe.Sizeof(*set)) * 8
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		first, last, isRange := strings.Cut(item, "-")
		if !isRange {
			last = first
		}
		low, err := strconv.ParseUint(first, 10, 31)
		if err != nil {
			return nil, err
		}
		high, err := strconv.ParseUint(last, 10, 31)
		if err != nil {
			return nil, err
		}
		if low > high || int(high) >= limit {
			return nil, fmt.Errorf("invalid range %q, the limit is %d", item, limit-1)
		}
		for i := low; i <= high; i++ {
			set.Set(int(i))
		}
	}
	if set.Count() == 0 {
		return nil, fmt.Errorf("no members found in set %q", list)
	}
	return set, nil
}

// ResetAffinity lets process pid run on every CPU that its cpuset allows, whatever its starter was bound to. The mask
// is larger than any machine, and the kernel cuts it down to the cpuset.
func ResetAffinity(pid int) error {
	mask := make([]byte, 64<<10/8)
	for i := range mask {
		mask[i] = 0xff
	}
	_, _, errno := unix.Syscall(unix.SYS_SCHED_SETAFFINITY, uintptr(pid), uintptr(len(mask)),
		uintptr(unsafe.Pointer(&mask[0])))
	if errno != 0 && !errors.Is(errno, unix.ESRCH) {
		return os.NewSyscallError("sched_setaffinity", errno)
	}
	return nil
}

// SetAffinity binds process pid, or the calling thread for 0, to the CPUs of the list; "" leaves it.
func SetAffinity(pid int, list string) error {
	if list == "" {
		return nil
	}
	set, err := ParseSet(list)
	if err != nil {
		return fmt.Errorf("parse cpu affinity %q: %w", list, err)
	}
	if err := unix.SchedSetaffinity(pid, set); err != nil {
		return fmt.Errorf("set cpu affinity %q: %w", list, err)
	}
	return nil
}
