package runtime

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/runtime/internal/cgroup"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// examplePlan needs no busybox and no root: any directory will do as a rootfs.
func exampleBundle(t *testing.T) string {
	t.Helper()
	bundle, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(bundle, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	return bundle
}

func TestParseTakesTheExample(t *testing.T) {
	bundle := exampleBundle(t)
	for name, spec := range map[string]*specs.Spec{"root": ExampleSpec(), "rootless": ExampleSpec()} {
		if name == "rootless" {
			MakeRootless(spec)
		}
		p, err := Parse(bundle, spec, &PlanOptions{NoPivot: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p.Rootfs != filepath.Join(bundle, "rootfs") || p.Bundle != bundle || !p.NoPivot {
			t.Errorf("%s: plan is %+v", name, p)
		}
		copied := p.clone()
		if a, b := jsonOf(t, p), jsonOf(t, copied); a != b {
			t.Errorf("%s: a plan does not survive JSON: %s, %s", name, a, b)
		}
		if name == "rootless" {
			if err := p.checkRootless(); err != nil {
				t.Errorf("rootless: %v", err)
			}
		}
	}
}

func TestEmptyListOfSeccompFlagsIsRemembered(t *testing.T) {
	bundle := exampleBundle(t)
	for name, c := range map[string]struct {
		flags []specs.LinuxSeccompFlag
		want  bool
	}{"none": {nil, false}, "empty": {[]specs.LinuxSeccompFlag{}, true}, "one": {[]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}, false}} {
		spec := ExampleSpec()
		spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: c.flags}
		p, err := Parse(bundle, spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		copied := p.clone()
		if copied.NoSeccompFlags != c.want || len(copied.Spec.Linux.Seccomp.Flags) != len(c.flags) {
			t.Errorf("%s: no flags: %v, the flags are %v", name, copied.NoSeccompFlags, copied.Spec.Linux.Seccomp.Flags)
		}
		again, err := Parse(bundle, copied.Spec, &PlanOptions{NoSeccompFlags: copied.NoSeccompFlags})
		if err != nil || again.NoSeccompFlags != c.want {
			t.Errorf("%s: forgotten on a move: %v", name, err)
		}
	}
}

func TestParseTakesMountPointsAsTheHostSeesThem(t *testing.T) {
	bundle, spec := exampleBundle(t), ExampleSpec()
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: bundle + "/rootfs/data", Source: "/tmp", Type: "bind", Options: []string{"bind"}})
	p, err := Parse(bundle, spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Spec.Mounts[len(p.Spec.Mounts)-1].Destination; got != "/data" {
		t.Errorf("mount point is %s", got)
	}
}

type refusal struct {
	change func(*specs.Spec)
	want   string
}

func without(kind specs.LinuxNamespaceType) func(*specs.Spec) {
	return func(s *specs.Spec) {
		var rest []specs.LinuxNamespace
		for _, n := range s.Linux.Namespaces {
			if n.Type != kind {
				rest = append(rest, n)
			}
		}
		s.Linux.Namespaces = rest
	}
}

func with(n specs.LinuxNamespace) func(*specs.Spec) {
	return func(s *specs.Spec) {
		without(n.Type)(s)
		s.Linux.Namespaces = append(s.Linux.Namespaces, n)
	}
}

func both(a, b func(*specs.Spec)) func(*specs.Spec) {
	return func(s *specs.Spec) {
		a(s)
		b(s)
	}
}

func refusals() map[string]refusal {
	sysctl := func(name string) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{name: "1"} }
	}
	one := int64(1)
	ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	return map[string]refusal{
		"no root":         {func(s *specs.Spec) { s.Root = nil }, "root must be specified"},
		"missing rootfs":  {func(s *specs.Spec) { s.Root.Path = "nowhere" }, "invalid rootfs"},
		"rootfs a file":   {func(s *specs.Spec) { s.Root.Path = "/etc/passwd" }, "not a directory"},
		"no process":      {func(s *specs.Spec) { s.Process = nil }, "process property must not be empty"},
		"no cwd":          {func(s *specs.Spec) { s.Process.Cwd = "" }, "Cwd property must not be empty"},
		"relative cwd":    {func(s *specs.Spec) { s.Process.Cwd = "tmp" }, "Cwd must be an absolute path"},
		"no args":         {func(s *specs.Spec) { s.Process.Args = nil }, "args must not be empty"},
		"null in env":     {func(s *specs.Spec) { s.Process.Env = []string{"A=\x00"} }, "contains nul byte"},
		"unknown rlimit":  {func(s *specs.Spec) { s.Process.Rlimits[0].Type = "RLIMIT_X" }, "wrong rlimit value: RLIMIT_X"},
		"rlimit twice":    {func(s *specs.Spec) { s.Process.Rlimits = append(s.Process.Rlimits, s.Process.Rlimits[0]) }, "given twice"},
		"soft above hard": {func(s *specs.Spec) { s.Process.Rlimits[0].Soft = 9999 }, "above hard limit"},
		"scheduler":       {func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{} }, "scheduler policy is required"},
		"scheduler nice": {
			func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 20} }, "invalid scheduler.nice: 20",
		},
		"scheduler priority": {
			func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Priority: 1} }, "scheduler.priority can only",
		},
		"io priority": {func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Priority: 8} }, "invalid ioPriority.Priority: 8"},
		"io class": {
			func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "X"} }, `invalid ioPriority.Class: "X"`,
		},
		"affinity": {
			func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "3-1"} }, "bad CPUAffinity.Initial: invalid range: 3-1",
		},
		"hostname":        {without(specs.UTSNamespace), "unable to set hostname without a private UTS namespace"},
		"mount no target": {func(s *specs.Spec) { s.Mounts[0].Destination = "" }, "no destination"},
		"mount null byte": {func(s *specs.Spec) { s.Mounts[0].Source = "a\x00b" }, "mount field contains null byte"},
		"bind with data": {
			func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Source: "/tmp", Options: []string{"bind", "size=1"}})
			}, "bind mounts cannot have any filesystem-specific options applied",
		},
		"relative hook": {func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "x"}}} }, "not absolute"},
		"unknown namespace": {
			func(s *specs.Spec) {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "moon"})
			}, `namespace "moon" does not exist`,
		},
		"namespace twice": {
			func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0]) }, "duplicated ns",
		},
		"namespace path":  {with(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/nonexistent"}), "namespace path: stat /nonexistent"},
		"namespace comma": {with(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/a,b"}), "invalid namespace path /a,b"},
		"masked paths":    {without(specs.MountNamespace), "unable to restrict sys entries without a private MNT namespace"},
		"maps without ns": {func(s *specs.Spec) { s.Linux.UIDMappings = ids }, "user namespace isn't enabled"},
		"ns without maps": {with(specs.LinuxNamespace{Type: specs.UserNamespace}), "no namespace path to join nor mappings"},
		"time offsets": {
			func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}} }, "time namespace isn't enabled",
		},
		"unknown clock": {
			both(with(specs.LinuxNamespace{Type: specs.TimeNamespace}), func(s *specs.Spec) {
				s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"moon": {Secs: 1}}
			}), `unknown clock "moon"`,
		},
		"device type": {func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "z"}} }, `invalid device type "z"`},
		"device path": {func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "x", Type: "c"}} }, "not absolute"},
		"device rule": {func(s *specs.Spec) { s.Linux.Resources.Devices[0].Access = "" }, "device access field cannot be empty"},
		"sysctl":      {sysctl("kernel.panic"), `sysctl "kernel.panic" is not in a separate kernel namespace`},
		"sysctl net":  {both(without(specs.NetworkNamespace), sysctl("net.ipv4.ip_forward")), "not allowed in host network namespace"},
		"sysctl net by path": {
			both(with(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/proc/self/ns/net"}), sysctl("net/ipv4/ip_forward")),
			`sysctl "net.ipv4.ip_forward" not allowed in host network namespace`,
		},
		"sysctl that climbs": {sysctl("net/../kernel/core_pattern"), "is not the name of one"},
		"sysctl ipc":         {both(without(specs.IPCNamespace), sysctl("kernel.shmmax")), "not allowed in the hosts ipc namespace"},
		"sysctl hostname":    {sysctl("kernel.hostname"), "conflicts with the OCI"},
		"sysctl user":        {sysctl("user.max_user_namespaces"), "setting ucounts without a user namespace not allowed"},
		"propagation":        {func(s *specs.Spec) { s.Linux.RootfsPropagation = "x" }, "rootfsPropagation=x is not supported"},
		"seccomp action":     {func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "X"} }, "not a valid action"},
		"memory policy":      {func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "X"} }, `invalid memory policy mode "X"`},
		"memory policy node": {func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind} }, "at least one node"},
		"intel rdt":          {func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} }, "Intel RDT is not enabled"},
		"personality":        {func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "X"} }, "invalid personality domain X"},
		"net device": {
			func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"a/b": {}} }, `invalid network device name "a/b"`,
		},
		"net device on host": {
			both(without(specs.NetworkNamespace), func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}} }),
			"unable to move network devices",
		},
		"mount label": {func(s *specs.Spec) { s.Linux.MountLabel = "x" }, "selinux"},
		"unified on v1": {func(s *specs.Spec) {
			s.Linux.Resources.Unified = map[string]string{"memory.high": "1"}
			if cgroup.V2() { // there another impossible limit
				s.Linux.Resources.Unified = nil
				s.Linux.Resources.Memory = &specs.LinuxMemory{Swap: &one}
			}
		}, ""},
	}
}

func TestParseRefusesEveryBadConfigInOneLine(t *testing.T) {
	bundle := exampleBundle(t)
	for name, c := range refusals() {
		t.Run(name, func(t *testing.T) {
			spec := ExampleSpec()
			c.change(spec)
			_, err := Parse(bundle, spec, nil)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %v, want %q", err, c.want)
			}
		})
	}
}

func TestParseRefusesNetworksWithoutANamespaceForThem(t *testing.T) {
	bundle := exampleBundle(t)
	network := &Network{Bridge: "br0", Addresses: []string{"10.0.0.2/24"}}
	for name, change := range map[string]func(*specs.Spec){
		"host":    without(specs.NetworkNamespace),
		"by path": with(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/proc/self/ns/net"}),
	} {
		spec := ExampleSpec()
		change(spec)
		if _, err := Parse(bundle, spec, &PlanOptions{Network: network}); err == nil || !strings.Contains(err.Error(), "--network needs") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	if _, err := Parse(bundle, ExampleSpec(), &PlanOptions{Network: &Network{Bridge: "br0"}}); err == nil {
		t.Error("a network without an address was taken")
	}
}

func TestParseRefusesARootfsBehindALink(t *testing.T) {
	bundle := exampleBundle(t)
	if err := os.Symlink("rootfs", filepath.Join(bundle, "link")); err != nil {
		t.Fatal(err)
	}
	spec := ExampleSpec()
	spec.Root.Path = "link"
	if _, err := Parse(bundle, spec, nil); err == nil || !strings.Contains(err.Error(), "symlink") {
		t.Errorf("error is %v", err)
	}
}

func TestLoadSpecSaysWhatIsWrongWithAConfig(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"syntax":   {"{\n\"a\": 1,\n}", "line 3: invalid character '}'"},
		"type":     {"{\n\n\"hostname\": 7}", "line 3: json: cannot unmarshal number"},
		"cut":      {`{"ociVersion": "1`, "unexpected end of JSON input"},
		"null":     {"null", "config cannot be null"},
		"trailing": {"{} {}", "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			bundle := t.TempDir()
			if err := os.WriteFile(filepath.Join(bundle, ConfigFile), []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadSpec(bundle); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q", err, c.want)
			}
		})
	}
	if _, err := LoadSpec(t.TempDir()); err == nil || err.Error() != "JSON specification file config.json not found" {
		t.Errorf("no file: %v", err)
	}
	if _, err := LoadSpec("/nonexistent"); err == nil || !strings.Contains(err.Error(), "open bundle: stat /nonexistent") {
		t.Errorf("no bundle: %v", err)
	}
}

func TestRootlessRefusals(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){
		"no user namespace": without(specs.UserNamespace),
		"groups":            func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{5} },
		"unmapped gid":      func(s *specs.Spec) { s.Mounts[2].Options = append(s.Mounts[2].Options, "gid=5") },
		"net devices":       func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}} },
	} {
		spec := ExampleSpec()
		MakeRootless(spec)
		change(spec)
		p := &Plan{Spec: spec}
		if err := p.checkRootless(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestHostRootFollowsTheMaps(t *testing.T) {
	spec := ExampleSpec()
	with(specs.LinuxNamespace{Type: specs.UserNamespace})(spec)
	spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 10, HostID: 1, Size: 1}, {ContainerID: 0, HostID: 100000, Size: 10}}
	spec.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 10}}
	p := &Plan{Spec: spec}
	if uid, gid, err := p.HostRoot(); uid != 100000 || gid != 200000 || err != nil {
		t.Errorf("root is %d:%d, error %v", uid, gid, err)
	}
	spec.Process.User.UID = 10
	if uid, gid, err := p.HostUser(); uid != 1 || gid != 200000 || err != nil {
		t.Errorf("the program is %d:%d, error %v", uid, gid, err)
	}
	spec.Linux.GIDMappings = nil
	if _, _, err := p.HostRoot(); err == nil {
		t.Error("an unmapped root has a host id")
	}
}

func TestMergeResources(t *testing.T) {
	parse := func(text string) *specs.LinuxResources {
		r := &specs.LinuxResources{}
		if err := json.Unmarshal([]byte(text), r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	for name, c := range map[string]struct{ old, change, want string }{
		"nothing":           {`{"memory":{"limit":1}}`, `{}`, `{"memory":{"limit":1}}`},
		"new part":          {`{"memory":{"limit":1}}`, `{"cpu":{"shares":2}}`, `{"memory":{"limit":1},"cpu":{"shares":2}}`},
		"one value":         {`{"cpu":{"quota":5,"period":10,"cpus":"0"}}`, `{"cpu":{"quota":7}}`, `{"cpu":{"quota":7,"period":10,"cpus":"0"}}`},
		"lifting the limit": {`{"memory":{"limit":5,"swap":9}}`, `{"memory":{"limit":-1}}`, `{"memory":{"limit":-1}}`},
		"idle":              {`{"cpu":{"shares":5}}`, `{"cpu":{"idle":1}}`, `{"cpu":{"idle":1}}`},
		"devices stay":      {`{"devices":[{"allow":false,"access":"rwm"}]}`, `{"pids":{"limit":3}}`, `{"devices":[{"allow":false,"access":"rwm"}],"pids":{"limit":3}}`},
		"throttle": {
			`{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},{"major":9,"minor":0,"rate":2}]}}`,
			`{"blockIO":{"throttleReadBpsDevice":[{"major":9,"minor":0,"rate":5},{"major":7,"minor":1,"rate":3}]}}`,
			`{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},{"major":9,"minor":0,"rate":5},{"major":7,"minor":1,"rate":3}]}}`,
		},
		"throttle of a device given twice": {
			`{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},{"major":8,"minor":0,"rate":2}]}}`,
			`{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5}]}}`,
			`{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},{"major":8,"minor":0,"rate":5}]}}`,
		},
		"unified": {`{"unified":{"a":"1","b":"2"}}`, `{"unified":{"b":"3"}}`, `{"unified":{"a":"1","b":"3"}}`},
	} {
		got := mergeResources(parse(c.old), parse(c.change))
		if a, b := jsonOf(t, got), jsonOf(t, parse(c.want)); a != b {
			t.Errorf("%s: %s, want %s", name, a, b)
		}
	}
}
