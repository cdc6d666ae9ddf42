package runtime

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/livemigrate/migrate/runtime/internal/attribute"
	"github.com/livemigrate/migrate/runtime/internal/capability"
	"github.com/livemigrate/migrate/runtime/internal/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux"
)

// checkProcess is for init and for exec.
func checkProcess(p *specs.Process) error {
	switch {
	case p == nil:
		return errors.New("process property must not be empty")
	case p.Cwd == "":
		return errors.New("Cwd property must not be empty") //nolint:staticcheck // ST1005: runc's text
	case !filepath.IsAbs(p.Cwd):
		return errors.New("Cwd must be an absolute path") //nolint:staticcheck // ST1005: runc's text
	case len(p.Args) == 0:
		return errors.New("args must not be empty")
	case p.SelinuxLabel != "" && !selinux.GetEnabled():
		return errors.New("selinux label is specified in config, but selinux is disabled or not supported")
	}
	for _, text := range append([]string{p.Cwd}, p.Args...) {
		if strings.ContainsRune(text, 0) {
			return fmt.Errorf("invalid argument %q: it contains a null byte", text)
		}
	}
	for _, check := range []func(*specs.Process) error{
		checkEnvironment, checkUser, checkOOMScore, checkRlimits, checkScheduler, checkIOPriority, checkAffinity,
	} {
		if err := check(p); err != nil {
			return err
		}
	}
	return nil
}

func checkEnvironment(p *specs.Process) error {
	for _, variable := range p.Env {
		name, _, ok := strings.Cut(variable, "=")
		switch {
		case strings.ContainsRune(variable, 0):
			return fmt.Errorf("invalid environment variable %q: contains nul byte (\\x00)", name)
		case !ok:
			return errors.New("invalid environment variable: missing '='")
		case name == "":
			return errors.New("invalid environment variable: name cannot be empty")
		}
	}
	return nil
}

// checkUser refuses the one number that is no id: to setresuid(2) it says "leave it", and the program would stay root.
func checkUser(p *specs.Process) error {
	for _, id := range append([]uint32{p.User.UID, p.User.GID}, p.User.AdditionalGids...) {
		if id == math.MaxUint32 {
			return fmt.Errorf("invalid user or group id %d", id)
		}
	}
	return nil
}

func checkOOMScore(p *specs.Process) error {
	if adj := p.OOMScoreAdj; adj != nil && (*adj < -1000 || *adj > 1000) {
		return fmt.Errorf("invalid oomScoreAdj %d: not from -1000 to 1000", *adj)
	}
	return nil
}

// checkRlimits knows the resources of getrlimit(2).
func checkRlimits(p *specs.Process) error {
	known := []string{
		"AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC", "RSS", "RTPRIO", "RTTIME", "SIGPENDING", "STACK",
	}
	seen := map[string]bool{}
	for _, r := range p.Rlimits {
		name, ok := strings.CutPrefix(r.Type, "RLIMIT_")
		switch {
		case !ok || !slices.Contains(known, name):
			return fmt.Errorf("wrong rlimit value: %s", r.Type)
		case seen[r.Type]:
			return fmt.Errorf("rlimit %s is given twice", r.Type)
		case r.Soft > r.Hard:
			return fmt.Errorf("rlimit %s: soft limit %d is above hard limit %d", r.Type, r.Soft, r.Hard)
		}
		seen[r.Type] = true
		if err := checkPermitted(&r); err != nil {
			return err
		}
	}
	return nil
}

// checkPermitted knows what prlimit(2) refuses with EPERM, whoever asks: more descriptors than the kernel allows anybody,
// and a higher limit than our own without the capability for that.
func checkPermitted(r *specs.POSIXRlimit) error {
	if r.Type == "RLIMIT_NOFILE" {
		text, err := os.ReadFile("/proc/sys/fs/nr_open")
		if err != nil {
			return fmt.Errorf("look up the kernel's limit: %w", err)
		}
		if most, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && r.Hard > most {
			return fmt.Errorf("rlimit %s: hard limit %d is above the kernel's %d (sysctl fs.nr_open)", r.Type, r.Hard, most)
		}
	}
	own, err := attribute.HardLimit(r.Type)
	if err != nil || r.Hard <= own {
		return err
	}
	may, err := capability.MayRaiseLimits()
	if err == nil && !may {
		err = fmt.Errorf("rlimit %s: hard limit %d is above our own %d, and raising it takes CAP_SYS_RESOURCE", r.Type, r.Hard, own)
	}
	return err
}

// checkScheduler follows sched_setattr(2).
func checkScheduler(p *specs.Process) error {
	s := p.Scheduler
	if s == nil {
		return nil
	}
	realtime := s.Policy == specs.SchedFIFO || s.Policy == specs.SchedRR
	deadline := s.Policy == specs.SchedDeadline
	switch {
	case s.Policy == "":
		return errors.New("scheduler policy is required")
	case !realtime && !deadline && !slices.Contains([]specs.LinuxSchedulerPolicy{specs.SchedOther, specs.SchedBatch, specs.SchedISO, specs.SchedIdle}, s.Policy):
		return fmt.Errorf("invalid scheduler policy: %s", s.Policy)
	case (s.Policy == specs.SchedOther || s.Policy == specs.SchedBatch) && (s.Nice < -20 || s.Nice > 19):
		return fmt.Errorf("invalid scheduler.nice: %d when scheduler.policy is %s", s.Nice, s.Policy)
	case s.Priority != 0 && !realtime:
		return errors.New("scheduler.priority can only be specified for SchedFIFO or SchedRR policy")
	case !deadline && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0):
		return errors.New("scheduler runtime/deadline/period can only be specified for SchedDeadline policy")
	}
	for _, flag := range s.Flags {
		if !attribute.IsSchedulerFlag(flag) {
			return fmt.Errorf("invalid scheduler flag: %s", flag)
		}
	}
	return nil
}

func checkIOPriority(p *specs.Process) error {
	io := p.IOPriority
	switch {
	case io == nil:
		return nil
	case io.Priority < 0 || io.Priority > 7:
		return fmt.Errorf("invalid ioPriority.Priority: %d", io.Priority)
	case io.Class != specs.IOPRIO_CLASS_RT && io.Class != specs.IOPRIO_CLASS_BE && io.Class != specs.IOPRIO_CLASS_IDLE:
		return fmt.Errorf("invalid ioPriority.Class: %q", io.Class)
	}
	return nil
}

func checkAffinity(p *specs.Process) error {
	if p.ExecCPUAffinity == nil {
		return nil
	}
	if _, err := countList(p.ExecCPUAffinity.Initial); err != nil {
		return fmt.Errorf("bad CPUAffinity.Initial: %w", err)
	}
	if _, err := countList(p.ExecCPUAffinity.Final); err != nil {
		return fmt.Errorf("bad CPUAffinity.Final: %w", err)
	}
	return nil
}

// countList counts what a list like "0-3,7" names.
func countList(list string) (int, error) {
	const most = 1 << 13 // CONFIG_NR_CPUS at its largest
	count := 0
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 32)
		if err != nil {
			return 0, err
		}
		to, err := strconv.ParseUint(last, 10, 32)
		if err != nil {
			return 0, err
		}
		if from > to || to >= most {
			return 0, fmt.Errorf("invalid range: %s", part)
		}
		count += int(to-from) + 1
	}
	if count == 0 && list != "" {
		return 0, fmt.Errorf("no members found in set %q", list)
	}
	return count, nil
}

func (p *Plan) checkSeccomp() error { return seccomp.Check(p.Spec.Linux.Seccomp) }

func (p *Plan) checkMemoryPolicy() error {
	policy := p.Spec.Linux.MemoryPolicy
	if policy == nil {
		return nil
	}
	if !slices.Contains(memoryPolicyModes(), string(policy.Mode)) {
		return fmt.Errorf("invalid memory policy mode %q", policy.Mode)
	}
	for _, flag := range policy.Flags {
		if !slices.Contains(memoryPolicyFlags(), string(flag)) {
			return fmt.Errorf("invalid memory policy flag %q", flag)
		}
	}
	nodes, err := countList(policy.Nodes)
	if err != nil {
		return fmt.Errorf("invalid memory policy nodes %q: %w", policy.Nodes, err)
	}
	switch policy.Mode {
	case specs.MpolDefault, specs.MpolLocal:
		if nodes != 0 {
			return fmt.Errorf("memory policy mode requires 0 nodes but got %d", nodes)
		}
	case specs.MpolPreferred:
	default:
		if nodes == 0 {
			return errors.New("memory policy mode requires at least one node but got 0")
		}
	}
	return nil
}

func memoryPolicyModes() []string {
	return []string{
		string(specs.MpolBind), string(specs.MpolDefault), string(specs.MpolInterleave), string(specs.MpolLocal),
		string(specs.MpolPreferred), string(specs.MpolPreferredMany), string(specs.MpolWeightedInterleave),
	}
}

func memoryPolicyFlags() []string {
	return []string{string(specs.MpolFNumaBalancing), string(specs.MpolFRelativeNodes), string(specs.MpolFStaticNodes)}
}

func parseID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	return uint32(id), err
}
