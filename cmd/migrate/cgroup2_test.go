package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/testutil"
)

const cgroupRoot = "/sys/fs/cgroup"

// newCgroup2Host is a host with cgroup v2 alone, whose container may write to its cgroup mount.
func newCgroup2Host(t *testing.T, script string, changes ...func(*specs.Spec)) *host {
	t.Helper()
	testutil.CgroupV2(t)
	return newContainerHost(t, script, append([]func(*specs.Spec){writableCgroup}, changes...)...)
}

func writableCgroup(s *specs.Spec) {
	for i := range s.Mounts {
		if s.Mounts[i].Destination == cgroupRoot {
			s.Mounts[i].Options = []string{"nosuid", "noexec", "nodev", "relatime"}
		}
	}
}

// cgroupFile is what a file of a cgroup says.
func cgroupFile(t *testing.T, elements ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(cgroupRoot, filepath.Join(elements...)))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func makeCgroup(t *testing.T, elements ...string) string {
	t.Helper()
	dir := filepath.Join(cgroupRoot, filepath.Join(elements...))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	})
	return dir
}

func writeCgroup(t *testing.T, text string, elements ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(cgroupRoot, filepath.Join(elements...)), []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

// Every limit of the spec, in the words of cgroup v2: swap without the memory, weights instead of shares.
func TestCgroup2TakesEveryLimit(t *testing.T) {
	testutil.CgroupV2(t)
	disk, err := os.ReadFile("/sys/class/block/vda/dev")
	testutil.Need(t, err == nil, "the disk vda")
	var major, minor int64
	if _, err := fmt.Sscanf(string(disk), "%d:%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	throttle := func(rate uint64) []specs.LinuxThrottleDevice {
		d := specs.LinuxThrottleDevice{Rate: rate}
		d.Major, d.Minor = major, minor
		return []specs.LinuxThrottleDevice{d}
	}
	h := newCgroup2Host(t, forever, func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: new(int64(64 << 20)), Swap: new(int64(96 << 20)), Reservation: new(int64(32 << 20))},
			CPU: &specs.LinuxCPU{
				Shares: new(uint64(1024)), Quota: new(int64(50000)), Period: new(uint64(100000)), Burst: new(uint64(1000)), Cpus: "0", Mems: "0",
			},
			Pids: &specs.LinuxPids{Limit: new(int64(33))},
			BlockIO: &specs.LinuxBlockIO{
				ThrottleReadBpsDevice: throttle(1 << 20), ThrottleWriteBpsDevice: throttle(2 << 20),
				ThrottleReadIOPSDevice: throttle(100), ThrottleWriteIOPSDevice: throttle(200),
			},
			HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
			Unified:        map[string]string{"memory.high": "50331648", "cgroup.max.descendants": "7"},
		}
	})
	id := h.id("limits")
	h.ok("run", "-d", id)
	for file, want := range map[string]string{
		"memory.max":             strconv.Itoa(64 << 20),
		"memory.swap.max":        strconv.Itoa(32 << 20),
		"memory.low":             strconv.Itoa(32 << 20),
		"memory.high":            strconv.Itoa(48 << 20),
		"cpu.weight":             "100",
		"cpu.max":                "50000 100000",
		"cpu.max.burst":          "1000",
		"cpuset.cpus":            "0",
		"cpuset.mems":            "0",
		"pids.max":               "33",
		"io.max":                 fmt.Sprintf("%d:%d rbps=1048576 wbps=2097152 riops=100 wiops=200", major, minor),
		"hugetlb.2MB.max":        strconv.Itoa(4 << 20),
		"cgroup.max.descendants": "7",
	} {
		if got := cgroupFile(t, id, file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
}

// The bounds of shares are those of weights, and a limit without swap leaves swap alone.
func TestCgroup2ConvertsSharesAndSwap(t *testing.T) {
	for shares, weight := range map[uint64]string{2: "1", 1024: "100", 262144: "10000"} {
		h := newCgroup2Host(t, forever, func(s *specs.Spec) {
			s.Linux.Resources.CPU = &specs.LinuxCPU{Shares: &shares}
			s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: new(int64(64 << 20)), Swap: new(int64(64 << 20))}
		})
		id := h.id(fmt.Sprint("shares", shares))
		h.ok("run", "-d", id)
		if got := cgroupFile(t, id, "cpu.weight"); got != weight {
			t.Errorf("%d shares became weight %s, want %s", shares, got, weight)
		}
		if got := cgroupFile(t, id, "memory.swap.max"); got != "0" {
			t.Errorf("memory and swap of the same size: memory.swap.max is %s, want 0", got)
		}
		h.ok("update", "--memory-swap", "-1", id)
		if got := cgroupFile(t, id, "memory.swap.max"); got != "max" {
			t.Errorf("memory.swap.max is %s after it was lifted", got)
		}
	}
}

func TestCgroup2UpdateIsRolledBack(t *testing.T) {
	h := newCgroup2Host(t, forever)
	id := h.id("update")
	h.ok("run", "-d", id)
	h.ok("update", "--memory", "64m", "--memory-swap", "80m", "--memory-reservation", "32m", "--pids-limit", "40", "--cpu-share", "2048",
		"--cpu-quota", "20000", "--cpu-period", "50000", "--cpuset-cpus", "0", id)
	want := map[string]string{
		"memory.max": strconv.Itoa(64 << 20), "memory.swap.max": strconv.Itoa(16 << 20), "memory.low": strconv.Itoa(32 << 20),
		"pids.max": "40", "cpu.max": "20000 50000", "cpuset.cpus": "0", "memory.high": "max",
	}
	check := func(when string) {
		t.Helper()
		for file, want := range want {
			if got := cgroupFile(t, id, file); got != want {
				t.Errorf("%s: %s is %q, want %q", when, file, got, want)
			}
		}
	}
	check("after an update")
	for _, bad := range []string{
		`{"memory": {"limit": 33554432}, "pids": {"limit": 7}, "cpu": {"cpus": "4711"}}`,
		`{"memory": {"limit": 33554432}, "unified": {"memory.high": "much"}}`,
		`{"pids": {"limit": 7}, "unified": {"nonsense.max": "1"}}`,
	} {
		cmd := h.command("update", "-r", "-", id)
		cmd.Stdin = strings.NewReader(bad)
		if got := h.finish(cmd); got.code != 1 {
			t.Errorf("update %s: exit code %d", bad, got.code)
		} else {
			message(t, got.stderr)
		}
		check("after a failed update")
	}
	cmd := h.command("update", "-r", "-", id)
	cmd.Stdin = strings.NewReader(`{"unified": {"memory.high": "50331648", "pids.max": "50"}}`)
	if got := h.finish(cmd); got.code != 0 {
		t.Errorf("update of unified resources: %s", got.stderr)
	}
	want["memory.high"], want["pids.max"] = strconv.Itoa(48<<20), "50"
	check("after an update of unified resources")
}

func TestUnifiedResourceOfNoControllerIsRefused(t *testing.T) {
	for file, want := range map[string]string{"nonsense.max": "nonsense", "memory/../x": "slashes", "../../x": "slashes"} {
		h := newCgroup2Host(t, "true", func(s *specs.Spec) { s.Linux.Resources.Unified = map[string]string{file: "1"} })
		if got := h.run("run", h.id("unified")); got.code != 1 || !strings.Contains(message(t, got.stderr), want) {
			t.Errorf("%s: exit code %d: %s", file, got.code, got.stderr)
		}
	}
}

// cgroup v2 has no device files: a program in the kernel decides.
func TestCgroup2DevicesAreEnforced(t *testing.T) {
	rule := func(allow bool, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: allow, Type: "c", Major: new(int64(1)), Minor: &minor, Access: access}
	}
	h := newCgroup2Host(t, forever, func(s *specs.Spec) {
		for name, minor := range map[string]int64{"kmsg": 11, "port": 4, "null2": 3} {
			s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: "/dev/" + name, Type: "c", Major: 1, Minor: minor, FileMode: new(os.FileMode(0o666))})
		}
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, rule(true, 11, "w"))
	})
	id := h.id("devices")
	h.ok("run", "-d", id)
	check := func(when string) {
		t.Helper()
		for script, want := range map[string]int{
			"echo x > /dev/null":       0,
			"echo x > /dev/null2":      0, // by its number, not its name
			"echo migrate > /dev/kmsg": 0,
			": < /dev/kmsg":            1, // may be written only
			": < /dev/port":            1,
			": > /dev/port":            1,
		} {
			got := h.run("exec", id, "sh", "-c", script)
			if got.code != want || want == 1 && !strings.Contains(got.stderr, "Operation not permitted") {
				t.Errorf("%s, %s: exit code %d: %s", when, script, got.code, got.stderr)
			}
		}
	}
	check("at first")
	h.ok("update", "--pids-limit", "100", id)
	check("after an update")
}

// A container whose processes moved to a leaf, as one does that runs a service manager, still takes others.
func TestCgroup2ExecFindsAPlace(t *testing.T) {
	h := newCgroup2Host(t, "mkdir /sys/fs/cgroup/init && echo $$ > /sys/fs/cgroup/init/cgroup.procs && "+
		"echo +pids > /sys/fs/cgroup/cgroup.subtree_control && echo up > /tmp/up; "+forever)
	id := h.id("leaf")
	h.ok("run", "-d", id)
	eventually(t, "the container divides its cgroup", fileHas(filepath.Join(h.bundle, "rootfs/tmp/up"), "up"))
	if got := h.ok("exec", id, "cat", "/proc/self/cgroup"); got != "0::/init\n" {
		t.Errorf("exec is in %q", got)
	}
	makeCgroup(t, id, "other")
	if got := h.ok("exec", "--cgroup", "other", id, "cat", "/proc/self/cgroup"); got != "0::/other\n" {
		t.Errorf("exec --cgroup is in %q", got)
	}
	// The container's own takes no processes now, and init's is not meant.
	if got := h.run("exec", "--cgroup", "/", id, "true"); got.code != 255 || !strings.Contains(message(t, got.stderr), "cgroups") {
		t.Errorf("exec --cgroup /: exit code %d: %s", got.code, got.stderr)
	}
	if got := h.run("exec", "--cgroup", "missing", id, "true"); got.code != 255 || !strings.Contains(message(t, got.stderr), "no such file") {
		t.Errorf("exec --cgroup missing: exit code %d: %s", got.code, got.stderr)
	}
	if got := h.run("exec", "--cgroup", "../"+id+"x", id, "true"); got.code != 255 || !strings.Contains(message(t, got.stderr), "bad sub cgroup path") {
		t.Errorf("exec --cgroup ../: exit code %d: %s", got.code, got.stderr)
	}
}

// Threads of one container in cgroups of their own: a process may begin in such a one too, but not where it would be a domain.
func TestCgroup2ExecIntoThreadedCgroups(t *testing.T) {
	h := newCgroup2Host(t, forever)
	id := h.id("threaded")
	h.ok("run", "-d", id)
	makeCgroup(t, id, "domain")
	makeCgroup(t, id, "threads")
	writeCgroup(t, "threaded", id, "threads", "cgroup.type")
	if got := h.ok("exec", "--cgroup", "threads", id, "cat", "/proc/self/cgroup"); got != "0::/threads\n" {
		t.Errorf("exec --cgroup is in %q", got)
	}
	if got := h.run("exec", "--cgroup", "domain", id, "true"); got.code != 255 || !strings.Contains(message(t, got.stderr), "domain/cgroup.procs: operation not supported") {
		t.Errorf("exec --cgroup into an invalid domain: exit code %d: %s", got.code, got.stderr)
	}
	h.ok("delete", "--force", id)
}

func TestCgroup2NamespaceShowsTheContainersPart(t *testing.T) {
	h := newCgroup2Host(t, forever)
	id := h.id("ns")
	h.ok("run", "-d", id)
	if got := h.ok("exec", id, "sh", "-c", "cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.events"); got != "0::/\npopulated 1\nfrozen 0\n" {
		t.Errorf("inside: %q", got)
	}
	h = newContainerHost(t, forever) // read-only, as in runc's own spec
	id = h.id("ro")
	h.ok("run", "-d", id)
	if got := h.run("exec", id, "sh", "-c", "echo > /sys/fs/cgroup/cgroup.procs"); !strings.Contains(got.stderr, "Read-only file system") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}

func TestCgroup2FreezeReachesNestedCgroups(t *testing.T) {
	h := newCgroup2Host(t, "mkdir -p /sys/fs/cgroup/a/b; (echo 0 > /sys/fs/cgroup/a/b/cgroup.procs; exec sleep 1000) & "+forever)
	id := h.id("nested")
	h.ok("run", "-d", id)
	eventually(t, "a process in a cgroup below", fileHas(filepath.Join(cgroupRoot, id, "a/b/cgroup.events"), "populated 1\nfrozen 0"))
	h.ok("pause", id)
	for _, below := range []string{"", "a/b"} {
		if got := cgroupFile(t, id, below, "cgroup.events"); got != "populated 1\nfrozen 1" {
			t.Errorf("%q: %q", below, got)
		}
	}
	h.ok("resume", id)
	if got := cgroupFile(t, id, "a/b/cgroup.events"); got != "populated 1\nfrozen 0" {
		t.Errorf("after resume: %q", got)
	}
	h.ok("pause", id)
	h.ok("delete", "--force", id) // cgroup.kill, then from the bottom up
	if _, err := os.Stat(filepath.Join(cgroupRoot, id)); !os.IsNotExist(err) {
		t.Errorf("the cgroup is left: %v", err)
	}
}

// The container gets what the kernel means to be given away, and not its own limits.
func TestCgroup2BelongsToTheContainersRoot(t *testing.T) {
	const base = 400000
	mapped := func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: base, Size: 65536}}
		s.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: base, Size: 65536}}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: new(int64(50))}
	}
	h := newCgroup2Host(t, forever, mapped)
	h.open(t, base)
	id := h.id("owned")
	h.ok("run", "-d", id)
	given := map[string]bool{}
	for name := range strings.FieldsSeq(cgroupDelegate(t)) {
		given[name] = true
	}
	entries, err := os.ReadDir(filepath.Join(cgroupRoot, id))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if uid, _ := ids(info); (uid == base) != given[entry.Name()] {
			t.Errorf("%s is %d's", entry.Name(), uid)
		}
	}
	if got := h.run("exec", id, "sh", "-c", "mkdir /sys/fs/cgroup/sub && echo $$ > /sys/fs/cgroup/sub/cgroup.procs && cat /proc/self/cgroup"); got.stdout != "0::/sub\n" {
		t.Errorf("the container cannot divide its cgroup: %q %s", got.stdout, got.stderr)
	}
	if got := h.run("exec", id, "sh", "-c", "echo max > /sys/fs/cgroup/pids.max"); !strings.Contains(got.stderr, "Permission denied") {
		t.Errorf("the container changed its limit: exit code %d: %s", got.code, got.stderr)
	}
	h = newContainerHost(t, forever, mapped) // a read-only mount: nothing to give
	h.open(t, base)
	id = h.id("kept")
	h.ok("run", "-d", id)
	if info, err := os.Stat(filepath.Join(cgroupRoot, id)); err != nil {
		t.Error(err)
	} else if uid, _ := ids(info); uid != 0 {
		t.Errorf("the cgroup of a container that can't write to it is %d's", uid)
	}
}

// open lets the root of a user namespace through to the bundle, and gives it the root filesystem.
func (h *host) open(t *testing.T, uid int) {
	t.Helper()
	for _, dir := range []string{filepath.Dir(h.bundle), filepath.Dir(h.root)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(filepath.Dir(h.root)), 0o755); err != nil {
		t.Fatal(err)
	}
	(&person{uid: uid}).own(t, filepath.Join(h.bundle, "rootfs"))
}

func cgroupDelegate(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/sys/kernel/cgroup/delegate")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Whoever made the parent need not have passed its controllers on.
func TestCgroup2ControllersAreSwitchedOnAlongThePath(t *testing.T) {
	top := fmt.Sprintf("migrate-top-%d", os.Getpid())
	limited := func(path string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.CgroupsPath = path
			s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: new(int64(64 << 20))}
		}
	}
	h := newCgroup2Host(t, forever, limited("/"+top+"/a/b"))
	makeCgroup(t, top)
	makeCgroup(t, top, "a")
	if got := cgroupFile(t, top, "cgroup.subtree_control"); got != "" {
		t.Fatalf("a new cgroup passes %q on", got)
	}
	id := h.id("path")
	h.ok("run", "-d", id)
	if got := cgroupFile(t, top, "a/b/memory.max"); got != strconv.Itoa(64<<20) {
		t.Errorf("memory.max is %s", got)
	}
	h.ok("delete", "--force", id)

	// A cgroup with processes of its own can pass no controllers on: a limit is then refused, by name.
	busy := exec.Command("sleep", "1000")
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Process.Kill(); _ = busy.Wait() }()
	inner := filepath.Join(top, "inner")
	makeCgroup(t, inner)
	writeCgroup(t, strconv.Itoa(busy.Process.Pid), inner, "cgroup.procs")
	h.configure(forever, writableCgroup, limited("/"+inner+"/c"))
	if got := h.run("run", "-d", h.id("inner")); got.code != 1 || !strings.Contains(message(t, got.stderr), "with domain controllers") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	h.configure(forever, writableCgroup, func(s *specs.Spec) { s.Linux.CgroupsPath = "/" + inner + "/c" })
	h.ok("run", "-d", h.id("unlimited"))
	h.ok("delete", "--force", h.id("unlimited"))
	if _, err := os.Stat(filepath.Join(cgroupRoot, inner, "c")); !os.IsNotExist(err) {
		t.Errorf("the cgroup is left: %v", err)
	}
}

func TestCgroup2StatsAreRuncs(t *testing.T) {
	h := newCgroup2Host(t, forever, func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: new(int64(64 << 20))}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: new(int64(30))}
	})
	id := h.id("stats")
	h.ok("run", "-d", id)
	var e struct {
		Type string
		Data struct {
			CPU struct {
				Usage      struct{ Total, Kernel, User uint64 }
				Throttling map[string]uint64
				PSI        *struct{ Some, Full struct{ Total uint64 } }
			}
			Memory struct {
				Usage, Swap struct{ Limit, Usage uint64 }
				Raw         map[string]uint64
				PSI         *struct{}
			}
			Pids    struct{ Current, Limit uint64 }
			Hugetlb map[string]any
		}
	}
	text := h.ok("events", "--stats", id)
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	d := e.Data
	for what, ok := range map[string]bool{
		"cpu":    d.CPU.Usage.Total > 0 && d.CPU.Usage.User+d.CPU.Usage.Kernel > 0,
		"memory": d.Memory.Usage.Limit == 64<<20 && d.Memory.Usage.Usage > 0 && d.Memory.Raw["anon"] > 0,
		"pids":   d.Pids.Limit == 30 && d.Pids.Current > 0,
		"huge":   d.Hugetlb["2MB"] != nil,
	} {
		if !ok {
			t.Errorf("%s: %s", what, text)
		}
	}
}

func TestCgroup2OOMIsAnEvent(t *testing.T) {
	h := newCgroup2Host(t, forever, func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: new(int64(32 << 20)), Swap: new(int64(32 << 20))}
	})
	id := h.id("oom")
	h.ok("run", "-d", id)
	events := h.command("events", "--interval", "1h", id)
	wait := h.start(events)
	// Again and again: events does not say when it has begun to listen.
	told := fileHas(events.Stdout.(*os.File).Name(), `{"type":"oom","id":"`+id+`"`)
	eventually(t, "a process that dies for lack of memory is an event", func() bool {
		_ = h.run("exec", id, "dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1")
		return told()
	})
	h.ok("kill", id, "KILL")
	if got := wait(); got.code != 0 {
		t.Errorf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
}
