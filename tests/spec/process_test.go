package spec

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/testutil"
)

func TestProcessHasWhatItsConfigSays(t *testing.T) {
	process := func(change func(*specs.Process)) func(*box) {
		return func(b *box) { change(b.spec.Process) }
	}
	nice := []string{"CAP_SYS_NICE"}
	scheduler := func(s specs.Scheduler) func(*box) {
		return func(b *box) {
			b.spec.Process.Scheduler = &s
			if _, err := os.Stat("/sys/fs/cgroup/cpu/cpu.rt_runtime_us"); err == nil && s.Priority > 0 {
				// Where groups share real time out, a new one has none.
				b.spec.Linux.Resources.CPU = &specs.LinuxCPU{RealtimePeriod: pointer(uint64(1000000)), RealtimeRuntime: pointer(int64(5000))}
			}
		}
	}
	personality := func(domain specs.LinuxPersonalityDomain) func(*box) {
		return func(b *box) { b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: domain} }
	}
	policy := func(p specs.LinuxMemoryPolicy) func(*box) {
		return func(b *box) { b.spec.Linux.MemoryPolicy = &p }
	}
	inside(t, []row{
		// Policy, flags, nice, priority.
		{"SCHED_OTHER", scheduler(specs.Scheduler{Policy: specs.SchedOther, Nice: 7}), "probe scheduler", "0 0 7 0\n"},
		{"SCHED_BATCH", scheduler(specs.Scheduler{Policy: specs.SchedBatch, Nice: 3}), "probe scheduler", "3 0 3 0\n"},
		{"SCHED_IDLE", scheduler(specs.Scheduler{Policy: specs.SchedIdle}), "probe scheduler", "5 0 0 0\n"},
		{"SCHED_FIFO", scheduler(specs.Scheduler{Policy: specs.SchedFIFO, Priority: 8}), "probe scheduler", "1 0 0 8\n"},
		{"SCHED_RR, not inherited", scheduler(specs.Scheduler{
			Policy: specs.SchedRR, Priority: 9, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork},
		}), "exec probe scheduler", "2 1 0 9\n"},
		{"ioPriority", process(func(p *specs.Process) {
			p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
		}), "probe ioprio", "2 6\n"},
		{"ioPriority idle", process(func(p *specs.Process) {
			p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
		}), "probe ioprio", "3 0\n"},
		{"personality LINUX", personality(specs.PerLinux), "cat /proc/self/personality", "00000000\n"},
		{"personality LINUX32", personality(specs.PerLinux32), "cat /proc/self/personality", "00000008\n"},
		// MPOL_BIND is 2, MPOL_INTERLEAVE 3, MPOL_LOCAL 4; MPOL_F_STATIC_NODES is bit 15.
		{"memoryPolicy bind", policy(specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"}), "probe mempolicy", "0x2 1\n"},
		{"memoryPolicy with a flag", policy(specs.LinuxMemoryPolicy{
			Mode: specs.MpolInterleave, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes},
		}), "probe mempolicy", "0x8003 1\n"},
		{"memoryPolicy local", policy(specs.LinuxMemoryPolicy{Mode: specs.MpolLocal}), "probe mempolicy", "0x4 0\n"},
		{"umask", process(func(p *specs.Process) { p.User.Umask = pointer(uint32(0o27)) }), "umask", "0027\n"},
		{"umask of its own accord", nil, "umask", "0022\n"},
		{"additionalGids", process(func(p *specs.Process) {
			p.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{7, 70000}}
		}), "id -u; id -G", "1000\n1001 7 70000\n"},
		{"username means nothing on Linux", process(func(p *specs.Process) { p.User.Username = "nobody" }), "id -u", "0\n"},
		{"rlimits", process(func(p *specs.Process) {
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 64, Hard: 128}, {Type: "RLIMIT_CORE"}}
		}), "ulimit -n; ulimit -Hn; ulimit -c", "64\n128\n0\n"},
		{"oomScoreAdj", process(func(p *specs.Process) { p.OOMScoreAdj = pointer(123) }), "cat /proc/self/oom_score_adj", "123\n"},
		{"noNewPrivileges", process(func(p *specs.Process) { p.NoNewPrivileges = true }), "grep -c 'NoNewPrivs:.1' /proc/self/status", "1\n"},
		{"ambient capabilities", process(func(p *specs.Process) {
			p.User = specs.User{UID: 1000, GID: 1000}
			p.Capabilities = &specs.LinuxCapabilities{Bounding: nice, Effective: nice, Permitted: nice, Inheritable: nice, Ambient: nice}
		}), "grep -E 'Cap(Eff|Amb)' /proc/self/status | awk '{print $2}'", "0000000000800000\n0000000000800000\n"},
		{
			"no capabilities at all", process(func(p *specs.Process) { p.Capabilities = &specs.LinuxCapabilities{} }),
			"grep -E '^Cap' /proc/self/status | awk '{print $2}' | sort -u", "0000000000000000\n",
		},
		{"env", process(func(p *specs.Process) { p.Env = []string{"PATH=/bin", "A=1", "B=a=b", "A=2"} }), "env | grep -E '^[AB]=' | sort", "A=2\nB=a=b\n"},
		{"a config of an older version, with limits of then", func(b *box) {
			b.spec.Version = "1.0.2"
			b.spec.Linux.Resources.Memory = &specs.LinuxMemory{
				Kernel: pointer(int64(1 << 20)), KernelTCP: pointer(int64(1 << 20)), UseHierarchy: pointer(true), //nolint:staticcheck // SA1019: engines still give them.
			}
		}, "echo runs", "runs\n"},
		{"cwd that is made", process(func(p *specs.Process) { p.Cwd = "/new/place" }), "pwd", "/new/place\n"},
		{
			"hostname and domainname", func(b *box) { b.spec.Hostname, b.spec.Domainname = "boxed", "example" },
			"hostname; cat /proc/sys/kernel/domainname", "boxed\nexample\n",
		},
	})
}

func TestProcessThatCannotBeIsRefused(t *testing.T) {
	process := func(change func(*specs.Process)) func(*box) {
		return func(b *box) { change(b.spec.Process) }
	}
	rows := []row{
		{"policy", process(func(p *specs.Process) { p.Scheduler = &specs.Scheduler{Policy: "SCHED_SOON"} }), "", "invalid scheduler policy: SCHED_SOON"},
		{"deadline without the right or on a bound CPU", process(func(p *specs.Process) {
			// The kernel refuses it to a process whose CPUs are not all of a root domain, and parameters that make no sense to all.
			p.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 10, Deadline: 5, Period: 1}
		}), "", "set scheduler: "},
		{"scheduler flag", process(func(p *specs.Process) {
			p.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{"SCHED_FLAG_X"}}
		}), "", "invalid scheduler flag: SCHED_FLAG_X"},
		{"ioPriority", process(func(p *specs.Process) {
			p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		}), "", "invalid ioPriority.Priority: 8"},
		{"personality", func(b *box) { b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: "BSD"} }, "", "invalid personality domain BSD"},
		{"personality flag", func(b *box) {
			b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux, Flags: []specs.LinuxPersonalityFlag{"ADDR_NO_RANDOMIZE"}}
		}, "", "personality flag ADDR_NO_RANDOMIZE is not supported"},
		{"memoryPolicy", func(b *box) { b.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind} }, "", "requires at least one node"},
		{"affinity", process(func(p *specs.Process) { p.ExecCPUAffinity = &specs.CPUAffinity{Initial: "a"} }), "", "bad CPUAffinity.Initial"},
		{"rlimit", process(func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} }), "", "wrong rlimit value: RLIMIT_X"},
		{"AppArmor profile that is not there, if AppArmor is", process(func(p *specs.Process) { p.ApparmorProfile = "no-such-profile" }), "", "apparmor"},
		{"id that is not mapped", func(b *box) {
			b.userNamespace(100000)
			b.spec.Process.User.UID = 70000
		}, "", "unmapped uid 70000"},
	}
	if !there("/sys/fs/selinux/enforce") {
		label := process(func(p *specs.Process) { p.SelinuxLabel = "a:b:c:s0" })
		rows = append(rows, row{"SELinux label without SELinux", label, "", "selinux is disabled or not supported"})
	}
	if !there("/sys/fs/resctrl/schemata") {
		class := func(b *box) { b.spec.Linux.IntelRdt = &specs.LinuxIntelRdt{} }
		rows = append(rows, row{"intelRdt without it", class, "", "Intel RDT is not enabled"})
	}
	refused(t, rows)
}

func TestTimeNamespaceIsOffset(t *testing.T) {
	inside(t, []row{{"offsets", func(b *box) {
		b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, has(specs.TimeNamespace, ""))
		b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1 << 30, Nanosecs: 5}, "boottime": {Secs: 1 << 31}}
	}, "probe clock | awk '{print ($1 > 1073741824), ($1 > 2147483648)}'", "1 0\n1 1\n"}})
	refused(t, []row{
		{"unknown clock", func(b *box) {
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, has(specs.TimeNamespace, ""))
			b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"realtime": {}}
		}, "", "unknown clock"},
		{"no time namespace", func(b *box) { b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {}} }, "", "time namespace isn't enabled"},
		{"before the machine's boot", func(b *box) {
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, has(specs.TimeNamespace, ""))
			b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: -1 << 40}}
		}, "", "is out of range"},
	})
}

func TestExecHasItsOwnAttributes(t *testing.T) {
	b := newBox(t, "while :; do sleep 1; done")
	first, last, all := cpus(t)
	b.spec.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: first, Final: last}
	b.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 2}
	b.spec.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 5}
	b.spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"}
	b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	b.start()
	show := "awk '/Cpus_allowed_list/ {print $2}' /proc/self/status; probe scheduler; probe ioprio; probe mempolicy; cat /proc/self/personality"
	if got := b.ok("exec", b.id, "sh", "-c", show); got != last+"\n3 0 2 0\n2 5\n0x2 1\n00000008\n" {
		t.Errorf("exec has the container's:\n%s", got)
	}
	process := filepath.Join(t.TempDir(), "process.json")
	// Nobody sets CPUs after the move when there are none to set: since Linux 6.2 the kernel keeps those of before.
	for initial, want := range map[string]string{first: first, last: last, "": all} {
		p := specs.Process{
			Args: []string{"sh", "-c", show}, Cwd: "/", Env: []string{"PATH=/bin"},
			ExecCPUAffinity: &specs.CPUAffinity{Initial: initial}, Scheduler: &specs.Scheduler{Policy: specs.SchedOther, Nice: 4},
			IOPriority: &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 1},
		}
		data, err := json.Marshal(p)
		must(t, err)
		must(t, os.WriteFile(process, data, 0o644))
		got := lines(b.ok("exec", "--process", process, b.id))
		if got[0] != want || got[1] != "0 0 4 0" || got[2] != "2 1" {
			t.Errorf("exec with initial CPUs %q has %q, want %s", initial, got, want)
		}
	}
	data, err := json.Marshal(specs.Process{Args: []string{"true"}, Cwd: "/", ExecCPUAffinity: &specs.CPUAffinity{Final: "1023"}})
	must(t, err)
	must(t, os.WriteFile(process, data, 0o644))
	if got := b.migrate("exec", "--process", process, b.id); got.code != 255 || !strings.Contains(got.stderr, "set final CPU affinity") {
		t.Errorf("exec on a CPU that is not there: %d: %s", got.code, got.stderr)
	}
}

func TestTerminalHasTheSizeOfTheConfig(t *testing.T) {
	b := newBox(t, "stty size")
	b.spec.Process.Terminal = true
	b.spec.Process.ConsoleSize = &specs.Box{Height: 33, Width: 77}
	b.write()
	socket := filepath.Join(t.TempDir(), "console")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	must(t, err)
	defer listener.Close()
	master := make(chan *os.File, 1)
	go func() { master <- receiveFile(listener) }()
	b.ok("run", "--detach", "--console-socket", socket, b.id)
	f := <-master
	if f == nil {
		t.Fatal("no terminal came")
	}
	defer f.Close()
	buf := make([]byte, 100)
	n, _ := f.Read(buf)
	if got := string(buf[:n]); got != "33 77\r\n" {
		t.Errorf("the size is %q", got)
	}
}

func TestSocketsOfSystemdReachTheProgram(t *testing.T) {
	b := newBox(t, "probe listen; echo $LISTEN_FDS $LISTEN_PID")
	b.write()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "activated"), Net: "unix"})
	must(t, err)
	defer listener.Close()
	f, err := listener.File()
	must(t, err)
	defer f.Close()
	// LISTEN_PID has to be migrate's own pid, which a shell has before it becomes migrate.
	migrate := b.command("run", b.id)
	cmd := b.command()
	cmd.Path = testutil.Command(t, "sh")
	cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh"}, migrate.Args...)
	cmd.ExtraFiles = []*os.File{f}
	if got := finish(t, cmd); got.stdout != listener.Addr().String()+"\n1 1\n" {
		t.Errorf("exit code %d, the container printed:\n%s%s", got.code, got.stdout, got.stderr)
	}
	// Meant for somebody else.
	cmd = b.command("run", b.id)
	cmd.Env = append(cmd.Env, "LISTEN_PID=1", "LISTEN_FDS=1")
	cmd.ExtraFiles = []*os.File{f}
	if got := finish(t, cmd); !strings.HasPrefix(got.stderr, "file file") && !strings.Contains(got.stderr, "bad file descriptor") {
		t.Errorf("exit code %d, the container printed:\n%s%s", got.code, got.stdout, got.stderr)
	}
}
