package runtime

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// refused expects that Parse refuses the changed example in one line that says want.
func refused(t *testing.T, table map[string]refusal) {
	t.Helper()
	bundle := exampleBundle(t)
	for name, c := range table {
		t.Run(name, func(t *testing.T) {
			spec := ExampleSpec()
			c.change(spec)
			_, err := Parse(bundle, spec, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %v, want %q", err, c.want)
			}
		})
	}
}

func TestNamespacePathsThatLeadElsewhereAreRefused(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	path := func(kind specs.LinuxNamespaceType, path string) func(*specs.Spec) {
		return with(specs.LinuxNamespace{Type: kind, Path: path})
	}
	refused(t, map[string]refusal{
		"a file":         {path(specs.NetworkNamespace, "/etc/passwd"), "/etc/passwd is not a namespace"},
		"a directory":    {path(specs.IPCNamespace, "/proc"), "/proc is not a namespace"},
		"a fifo":         {path(specs.UTSNamespace, fifo), "is not a namespace"},
		"another type":   {path(specs.NetworkNamespace, "/proc/self/ns/ipc"), "/proc/self/ns/ipc is not a namespace of type net"},
		"a dead process": {path(specs.PIDNamespace, "/proc/4194304/ns/pid"), "stat /proc/4194304/ns/pid: no such file"},
		"relative":       {path(specs.NetworkNamespace, "proc/self/ns/net"), "invalid namespace path"},
	})
}

func TestMapsThatTheKernelWouldRefuseAreRefused(t *testing.T) {
	maps := func(lines ...specs.LinuxIDMapping) func(*specs.Spec) {
		return both(with(specs.LinuxNamespace{Type: specs.UserNamespace}), func(s *specs.Spec) {
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
			s.Linux.GIDMappings = lines
		})
	}
	refused(t, map[string]refusal{
		"size 0":              {maps(specs.LinuxIDMapping{HostID: 7}), "invalid gid mapping 0:7:0: its size is 0"},
		"beyond the last id":  {maps(specs.LinuxIDMapping{HostID: math.MaxUint32, Size: 1}), "beyond the last id"},
		"the container's ids": {maps(specs.LinuxIDMapping{Size: 10}, specs.LinuxIDMapping{ContainerID: 9, HostID: 50, Size: 2}), "9:50:2: it overlaps with 0:0:10"},
		"the host's ids":      {maps(specs.LinuxIDMapping{HostID: 5, Size: 1}, specs.LinuxIDMapping{ContainerID: 1, HostID: 5, Size: 1}), "overlaps"},
		"too many lines":      {maps(make([]specs.LinuxIDMapping, 341)...), "341 lines"},
		"of a mount": {func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{
				Destination: "/x", Source: "/tmp", Type: "bind",
				UIDMappings: []specs.LinuxIDMapping{{Size: 0}}, GIDMappings: []specs.LinuxIDMapping{{Size: 0}},
			})
		}, `invalid mount on "/x": invalid uid mapping 0:0:0`},
	})
	if err := checkMap("uid", []specs.LinuxIDMapping{{Size: 1000}, {ContainerID: 1000, HostID: 5000, Size: math.MaxUint32 - 5000}}); err != nil {
		t.Errorf("a map up to the last id is refused: %v", err)
	}
}

func TestProcessesThatCouldNotRunAreRefused(t *testing.T) {
	process := func(change func(p *specs.Process)) func(*specs.Spec) {
		return func(s *specs.Spec) { change(s.Process) }
	}
	limit := func(kind string, hard uint64) func(*specs.Spec) {
		return process(func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: kind, Hard: hard}} })
	}
	score := 1001
	refused(t, map[string]refusal{
		// To setresuid(2) this number means "keep what you are", which is root.
		"uid -1":            {process(func(p *specs.Process) { p.User.UID = math.MaxUint32 }), "invalid user or group id 4294967295"},
		"gid -1":            {process(func(p *specs.Process) { p.User.AdditionalGids = []uint32{math.MaxUint32} }), "invalid user or group id"},
		"oom score":         {process(func(p *specs.Process) { p.OOMScoreAdj = &score }), "invalid oomScoreAdj 1001"},
		"null in args":      {process(func(p *specs.Process) { p.Args = []string{"a\x00"} }), "null byte"},
		"null in cwd":       {process(func(p *specs.Process) { p.Cwd = "/\x00" }), "null byte"},
		"env without =":     {process(func(p *specs.Process) { p.Env = []string{"A"} }), "missing '='"},
		"env without name":  {process(func(p *specs.Process) { p.Env = []string{"=A"} }), "name cannot be empty"},
		"nofile of nr_open": {limit("RLIMIT_NOFILE", math.MaxUint64), "above the kernel's"},
		"scheduler flag": {process(func(p *specs.Process) {
			p.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{"X"}}
		}), "invalid scheduler flag: X"},
		"scheduler policy": {process(func(p *specs.Process) { p.Scheduler = &specs.Scheduler{Policy: "X"} }), "invalid scheduler policy: X"},
		"hostname":         {func(s *specs.Spec) { s.Hostname = strings.Repeat("h", 65) }, "hostname has 65 bytes"},
		"domainname":       {func(s *specs.Spec) { s.Domainname = strings.Repeat("d", 65) }, "domainname has 65 bytes"},
	})
}

func TestLimitThatWeMayNotRaiseIsRefused(t *testing.T) {
	bundle := exampleBundle(t)
	spec := ExampleSpec()
	spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_MSGQUEUE", Hard: 1001}}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends here, without its capability
		own, err := capability.NewPid2(0)
		if err == nil {
			err = own.Load()
		}
		if err == nil {
			own.Unset(capability.EFFECTIVE, capability.CAP_SYS_RESOURCE)
			err = own.Apply(capability.CAPS)
		}
		if err == nil {
			err = unix.Setrlimit(unix.RLIMIT_MSGQUEUE, &unix.Rlimit{Cur: 1000, Max: 1000}) // nothing here has such queues
		}
		if err == nil {
			_, err = Parse(bundle, spec, nil)
		}
		done <- err
	}()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "hard limit 1001 is above our own 1000, and raising it takes CAP_SYS_RESOURCE") {
		t.Errorf("error is %v", err)
	}
}

func TestDevicesAndMountsThatContradictEachOtherAreRefused(t *testing.T) {
	devices := func(list ...specs.LinuxDevice) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.Devices = list }
	}
	mounts := func(list ...specs.Mount) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Mounts = append(s.Mounts, list...) }
	}
	null := specs.LinuxDevice{Path: "/dev/x", Type: "c", Major: 1, Minor: 3}
	refused(t, map[string]refusal{
		"two devices":     {devices(null, specs.LinuxDevice{Path: "/dev//x", Type: "c", Major: 1, Minor: 5}), `is given twice: c 1:3 and c 1:5`},
		"negative number": {devices(specs.LinuxDevice{Path: "/dev/x", Type: "b", Major: -1}), `invalid device number -1:0 of "/dev/x"`},
		"large number":    {devices(specs.LinuxDevice{Path: "/dev/x", Type: "b", Minor: 1 << 20}), "invalid device number"},
		"null byte":       {devices(specs.LinuxDevice{Path: "/dev/x\x00", Type: "p"}), "null byte"},
		"device access":   {func(s *specs.Spec) { s.Linux.Resources.Devices[0].Access = "rx" }, `invalid device access "rx"`},
		"device rule":     {func(s *specs.Spec) { s.Linux.Resources.Devices[0].Type = "z" }, `invalid cgroup device type "z"`},
		"cgroups twice": {
			mounts(specs.Mount{Destination: "/sys/fs/cgroup/", Type: "cgroup2", Source: "cgroup"}), `invalid mount on "/sys/fs/cgroup/": cgroups are mounted there already`,
		},
		"relative climber": {mounts(specs.Mount{Destination: "a/../../x", Type: "tmpfs"}), `a relative destination with ".."`},
	})
	spec := ExampleSpec()
	both(devices(null, null), mounts(specs.Mount{Destination: "tmp", Type: "tmpfs"}))(spec)
	if _, err := Parse(exampleBundle(t), spec, nil); err != nil {
		t.Errorf("what engines do is refused: %v", err)
	}
}

func TestOffsetsOutOfRangeAreRefused(t *testing.T) {
	offset := func(o specs.LinuxTimeOffset) func(*specs.Spec) {
		return both(with(specs.LinuxNamespace{Type: specs.TimeNamespace}), func(s *specs.Spec) {
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": o}
		})
	}
	refused(t, map[string]refusal{
		"nanoseconds": {offset(specs.LinuxTimeOffset{Nanosecs: 1e9}), "time offset of clock boottime is out of range"},
		"seconds":     {offset(specs.LinuxTimeOffset{Secs: math.MinInt64}), "out of range"},
	})
}

// The kernel would say no more than "Numerical result out of range", to a process that has to be taken away again.
func TestOffsetsBeforeTheClocksStartAreRefused(t *testing.T) {
	for secs, want := range map[int64]string{
		-1: "", 0: "", 40000000: "",
		-5000000000:   "time offset of clock monotonic is out of range: -5000000000 seconds",
		maxOffset - 1: "out of range",
	} {
		spec := ExampleSpec()
		with(specs.LinuxNamespace{Type: specs.TimeNamespace})(spec)
		spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: secs}}
		plan, err := Parse(exampleBundle(t), spec, nil)
		if err != nil {
			t.Fatal(err) // a restore may have any
		}
		err = plan.checkClocks()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%d seconds: %v, want %q", secs, err, want)
		}
	}
}

func TestCPUSetsThatAreNoneAreRefused(t *testing.T) {
	cpus := func(cpus, mems string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: cpus, Mems: mems}}
		}
	}
	refused(t, map[string]refusal{
		"word":      {cpus("zz", ""), `invalid cpuset cpus "zz": "zz" is no number and no range`},
		"part":      {cpus("0,1-", ""), `"1-" is no number`},
		"negative":  {cpus("", "-1"), `invalid cpuset mems "-1"`},
		"backwards": {cpus("3-1", ""), "range 3-1 ends before it starts"},
	})
	for _, list := range []string{"", "0", "0-3,7", " 0 , 1\n", "0-N", "all", "0-15:1/4"} {
		if err := checkCPUSet("cpus", list); err != nil {
			t.Errorf("what the kernel takes is refused: %v", err)
		}
	}
}

func TestNetworkDevicesOfOneNameAreRefused(t *testing.T) {
	devices := func(inside map[string]string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{}
			for name, inside := range inside {
				s.Linux.NetDevices[name] = specs.LinuxNetDevice{Name: inside}
			}
		}
	}
	refused(t, map[string]refusal{
		"given twice":     {devices(map[string]string{"a": "eth0", "b": "eth0"}), `network device b would have the name "eth0" of a`},
		"another's own":   {devices(map[string]string{"a": "", "b": "a"}), `network device b would have the name "a" of a`},
		"lo inside":       {devices(map[string]string{"a": "lo"}), `invalid network device name "lo"`},
		"lo of the host":  {devices(map[string]string{"lo": "a"}), `invalid network device name "lo"`},
		"no name at all":  {devices(map[string]string{"": ""}), `invalid network device name ""`},
		"with path parts": {devices(map[string]string{"a": "b/c"}), `invalid network device name "b/c"`},
	})
	spec := ExampleSpec()
	devices(map[string]string{"a": "b", "b": "a"})(spec)
	bundle := exampleBundle(t)
	if _, err := Parse(bundle, spec, nil); err != nil {
		t.Errorf("two that change names are refused: %v", err)
	}
	devices(map[string]string{"a": "eth0"})(spec)
	_, err := Parse(bundle, spec, &PlanOptions{Network: &Network{Bridge: "br", Addresses: []string{"10.0.0.2/24"}}})
	if err == nil || !strings.Contains(err.Error(), `the name "eth0" of the device of --network`) {
		t.Errorf("a device takes the name of the link: %v", err)
	}
}

func TestSeccompProfilesThatSayNothingAreRefused(t *testing.T) {
	rule := func(change func(*specs.LinuxSeccomp)) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"getpid"}, Action: specs.ActErrno}},
			}
			change(s.Linux.Seccomp)
		}
	}
	tooLarge := uint(4096)
	refused(t, map[string]refusal{
		"action":       {rule(func(s *specs.LinuxSeccomp) { s.Syscalls[0].Action = "X" }), "string X is not a valid action for seccomp"},
		"architecture": {rule(func(s *specs.LinuxSeccomp) { s.Architectures = []specs.Arch{"X"} }), "string X is not a valid arch for seccomp"},
		"operator": {
			rule(func(s *specs.LinuxSeccomp) { s.Syscalls[0].Args = []specs.LinuxSeccompArg{{Op: "X"}} }), "string X is not a valid operator for seccomp",
		},
		"operator of a rule without effect": {rule(func(s *specs.LinuxSeccomp) {
			s.Syscalls[0].Action, s.Syscalls[0].Args = specs.ActAllow, []specs.LinuxSeccompArg{{Op: "X"}}
		}), "string X is not a valid operator for seccomp"},
		"seventh argument": {
			rule(func(s *specs.LinuxSeccomp) {
				s.Syscalls[0].Args = []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}
			}), "6 arguments",
		},
		"errno":    {rule(func(s *specs.LinuxSeccomp) { s.Syscalls[0].ErrnoRet = &tooLarge }), "errnoRet 4096"},
		"flag":     {rule(func(s *specs.LinuxSeccomp) { s.Flags = []specs.LinuxSeccompFlag{"X"} }), "error adding X flag to seccomp filter: flag is not known"},
		"listener": {rule(func(s *specs.LinuxSeccomp) { s.Syscalls[0].Action = specs.ActNotify }), "listenerPath is not set"},
	})
}

// Nobody's number can be negative: the JSON says which field, and where.
func TestConfigsOfWrongTypesNameTheField(t *testing.T) {
	for text, want := range map[string]string{
		`{"process":{"user":{"uid":-1}}}`:                                 "cannot unmarshal number -1 into Go struct field User.process.user.uid",
		`{"process":{"args":"sh"}}`:                                       "cannot unmarshal string into Go struct field Process.process.args",
		`{"linux":{"uidMappings":[{"size":-5}]}}`:                         "cannot unmarshal number -5",
		`{"process":{"rlimits":[{"type":"RLIMIT_CORE","hard":-1}]}}`:      "cannot unmarshal number -1",
		`{"linux":{"resources":{"cpu":{"shares":99999999999999999999}}}}`: "cannot unmarshal number 99999999999999999999",
		`[]`: "cannot unmarshal array",
	} {
		bundle := t.TempDir()
		if err := os.WriteFile(filepath.Join(bundle, ConfigFile), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := LoadSpec(bundle)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "line 1: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error is %v, want %q", text, err, want)
		}
	}
}

func TestConfigsThatAreNoFilesAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		make func(path string) error
		want string
	}{
		"directory": {func(path string) error { return os.Mkdir(path, 0o755) }, "not a regular file"},
		"fifo":      {func(path string) error { return unix.Mkfifo(path, 0o644) }, "not a regular file"},
		"device":    {func(path string) error { return os.Symlink("/dev/zero", path) }, "not a regular file"},
		"loop":      {func(path string) error { return os.Symlink(ConfigFile, path) }, "too many levels of symbolic links"},
		"huge": {func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, 1<<40))
		}, "its 1099511627776 bytes are more than any config has"},
		"deep": {func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat(`{"a":`, 20000)), 0o644)
		}, "exceeded max depth"},
	} {
		t.Run(name, func(t *testing.T) {
			bundle := t.TempDir()
			if err := c.make(filepath.Join(bundle, ConfigFile)); err != nil {
				t.Fatal(err)
			}
			_, err := LoadSpec(bundle)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), ConfigFile) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %v, want %q", err, c.want)
			}
		})
	}
}

// FuzzConfig: whatever stands in config.json, it becomes a plan that Create can work with, or one line that says why not.
func FuzzConfig(f *testing.F) {
	spec := ExampleSpec()
	for _, change := range []func(*specs.Spec){
		func(*specs.Spec) {},
		MakeRootless,
		with(specs.LinuxNamespace{Type: specs.TimeNamespace}),
		func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net/ipv4/ip_forward": "1"} },
		func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow} },
		func(s *specs.Spec) { s.Linux = nil },
	} {
		change(spec)
		data, err := json.Marshal(spec)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	bundle := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		spec, err := parseSpec(data)
		if err != nil {
			return
		}
		if spec.Root != nil {
			spec.Root.Path = bundle // else nothing but the check of the root would be met
		}
		p, err := Parse(bundle, spec, nil)
		if err != nil {
			if text := err.Error(); strings.ContainsAny(text, "\n\r") {
				t.Errorf("more than one line: %q", text)
			}
			return
		}
		_ = p.checkRootless()
		_, _, _ = p.HostRoot()
		if _, err := p.cgroupConfig("id", false, false); err != nil {
			return
		}
		again, err := Parse(bundle, p.clone().Spec, nil)
		if err != nil {
			t.Fatalf("its own plan is refused: %v", err)
		}
		if a, b := jsonOf(t, p), jsonOf(t, again); a != b {
			t.Errorf("the plan of a plan differs: %s, %s", a, b)
		}
	})
}
