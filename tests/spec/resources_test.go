package spec

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/testutil"
)

const forever = "while :; do sleep 1; done"

// disk is a block device with hardware behind it, as major and minor.
func disk(t *testing.T) (d specs.LinuxBlockIODevice) {
	t.Helper()
	found, _ := filepath.Glob("/sys/block/*/device")
	testutil.Need(t, len(found) > 0, "a disk in /sys/block")
	_, err := fmt.Sscanf(text(t, filepath.Join(filepath.Dir(found[0]), "dev")), "%d:%d", &d.Major, &d.Minor)
	must(t, err)
	return d
}

// controller says whether a hierarchy of cgroup v1 has it. A directory of that name proves nothing: engines leave such.
func controller(t *testing.T, name string) bool {
	t.Helper()
	for _, line := range lines(text(t, "/proc/self/cgroup")) {
		if fields := strings.Split(line, ":"); slices.Contains(strings.Split(fields[1], ","), name) {
			return true
		}
	}
	return false
}

// limits is a spec's resources and what the files of the cgroup say of them, "CONTROLLER/FILE" with a text that is in it.
type limits struct {
	name  string
	set   specs.LinuxResources
	files map[string]string
}

func TestLimitsReachTheFilesOfCgroupV1(t *testing.T) {
	testutil.CgroupV1(t)
	device := disk(t)
	throttle := []specs.LinuxThrottleDevice{{LinuxBlockIODevice: device, Rate: 1 << 20}}
	throttled := fmt.Sprintf("%d:%d 1048576\n", device.Major, device.Minor)
	_, cpu, _ := cpus(t)
	tests := []limits{
		{"memory", specs.LinuxResources{Memory: &specs.LinuxMemory{
			Limit: pointer(int64(64 << 20)), Reservation: pointer(int64(32 << 20)), Swap: pointer(int64(128 << 20)),
			Swappiness: pointer(uint64(10)), DisableOOMKiller: pointer(true),
		}}, map[string]string{
			"memory/memory.limit_in_bytes": "67108864\n", "memory/memory.soft_limit_in_bytes": "33554432\n",
			"memory/memory.memsw.limit_in_bytes": "134217728\n", "memory/memory.swappiness": "10\n",
			"memory/memory.oom_control": "oom_kill_disable 1\n",
		}},
		{"no limit of memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: pointer(int64(-1)), Swap: pointer(int64(-1))}}, map[string]string{
			"memory/memory.limit_in_bytes": "9223372036854771712\n",
		}},
		{"cpu", specs.LinuxResources{CPU: &specs.LinuxCPU{
			Shares: pointer(uint64(512)), Quota: pointer(int64(50000)), Period: pointer(uint64(100000)), Burst: pointer(uint64(1000)),
			Cpus: cpu, Mems: "0",
		}}, map[string]string{
			"cpu/cpu.shares": "512\n", "cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n", "cpu/cpu.cfs_burst_us": "1000\n",
			"cpuset/cpuset.cpus": cpu + "\n", "cpuset/cpuset.mems": "0\n",
		}},
		{"cpu that is idle", specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: pointer(int64(1))}}, map[string]string{"cpu/cpu.idle": "1\n"}},
		{"pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: pointer(int64(50))}}, map[string]string{"pids/pids.max": "50\n"}},
		{"pids without a limit", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: pointer(int64(-1))}}, map[string]string{"pids/pids.max": "max\n"}},
		{"block devices", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
			ThrottleReadBpsDevice: throttle, ThrottleWriteBpsDevice: throttle, ThrottleReadIOPSDevice: throttle, ThrottleWriteIOPSDevice: throttle,
		}}, map[string]string{
			"blkio/blkio.throttle.read_bps_device": throttled, "blkio/blkio.throttle.write_bps_device": throttled,
			"blkio/blkio.throttle.read_iops_device": throttled, "blkio/blkio.throttle.write_iops_device": throttled,
		}},
		{"weight", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: pointer(uint16(300))}}, map[string]string{"blkio/blkio.bfq.weight": "300\n"}},
		{"devices", specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
			{Access: "rwm"},
			{Allow: true, Type: "c", Major: pointer(int64(10)), Minor: pointer(int64(229)), Access: "rw"},
			{Allow: true, Type: "b", Major: pointer(int64(7)), Access: "r"},
		}}, map[string]string{"devices/devices.list": "c 10:229 rw\n"}},
		{"devices by major alone", specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
			{Access: "rwm"}, {Allow: true, Type: "b", Major: pointer(int64(7)), Access: "r"},
		}}, map[string]string{"devices/devices.list": "b 7:* r\n"}},
	}
	// TestResourcesThatCannotBeAreRefused has them where the controllers are missing.
	if controller(t, "hugetlb") {
		set := specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}}
		tests = append(tests, limits{"huge pages", set, map[string]string{"hugetlb/hugetlb.2MB.limit_in_bytes": "4194304\n"}})
	}
	if controller(t, "net_cls") {
		set := specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: pointer(uint32(1))}}
		tests = append(tests, limits{"class", set, map[string]string{"net_cls/net_cls.classid": "1\n"}})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t, forever)
			b.spec.Linux.Resources = &tt.set
			b.spec.Linux.CgroupsPath = "/" + b.id + "/below" // and where it is, is the config's to say
			b.t.Cleanup(func() { removeParents(t, b.id) })
			b.start()
			for file, want := range tt.files {
				controller, name, _ := strings.Cut(file, "/")
				data, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, b.id, "below", name))
				if err != nil || !strings.Contains(string(data), want) {
					t.Errorf("%s is %q, %v, and not %q", file, data, err, want)
				}
			}
			b.ok("delete", "--force", b.id)
			for file := range tt.files {
				if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", filepath.Dir(file), b.id, "below")); err == nil {
					t.Errorf("the cgroup of %s is left", file)
				}
			}
		})
	}
}

// removeParents removes what lies above a cgroup, and is nobody's: the runtime leaves it.
func removeParents(t *testing.T, name string) {
	t.Helper()
	for _, dir := range testutil.Cgroups(name) {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	}
}

func TestMemoryLimitBelowTheUsageIsRefusedWhenAsked(t *testing.T) {
	testutil.CgroupV1(t)
	b := newBox(t, "mkdir /tmp/m; mount -t tmpfs none /tmp/m 2>/dev/null; head -c 20000000 /dev/zero > /dev/shm/file; echo filled > /filled; "+forever)
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: pointer(int64(100 << 20)), CheckBeforeUpdate: pointer(true)}
	b.start()
	eventually(t, "the memory is used", func() bool {
		_, err := os.Stat(filepath.Join(b.rootfs, "filled"))
		return err == nil
	})
	got := b.migrate("update", "--memory", "10m", b.id)
	if got.code == 0 || !strings.Contains(got.stderr, "memory") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
	if got := b.ok("exec", b.id, "true"); got != "" {
		t.Error(got)
	}
}

func TestResourcesThatCannotBeAreRefused(t *testing.T) {
	testutil.CgroupV1(t)
	resources := func(r specs.LinuxResources) func(*box) {
		return func(b *box) { b.spec.Linux.Resources = &r }
	}
	rows := []row{
		{"unified on cgroup v1", resources(specs.LinuxResources{Unified: map[string]string{"memory.max": "1000000"}}), "", "cannot use unified on cgroup v1"},
		{"rdma without the controller or the adapter", resources(specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx5_0": {HcaHandles: pointer(uint32(1))}}}), "", "rdma"},
		{"cpu", resources(specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "900"}}), "", "cpuset"},
		{"interface", resources(specs.LinuxResources{Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{Name: "no-such", Priority: 1}}}}), "", "net_prio"},
		{"device type", resources(specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Type: "x", Access: "r"}}}), "", "device"},
		{"less memory than init takes", resources(specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: pointer(int64(8192))}}), "", "unable to set memory limit to 8192"},
	}
	if !controller(t, "hugetlb") {
		set := specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 1}}}
		rows = append(rows, row{"huge pages without the controller", resources(set), "", "hugetlb"})
	}
	if !controller(t, "net_cls") {
		set := specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: pointer(uint32(1))}}
		rows = append(rows, row{"class without the controller", resources(set), "", "net_cls"})
	}
	refused(t, rows)
}

func TestDevicesAreMadeAsTheConfigSays(t *testing.T) {
	device := func(d specs.LinuxDevice) func(*box) {
		return func(b *box) { b.spec.Linux.Devices = []specs.LinuxDevice{d} }
	}
	mode := pointer(os.FileMode(0o640))
	show := "stat -c '%F %a %u:%g %t:%T' /dev/it"
	inside(t, []row{
		{
			"character", device(specs.LinuxDevice{Path: "/dev/it", Type: "c", Major: 10, Minor: 229, FileMode: mode, UID: pointer(uint32(3)), GID: pointer(uint32(4))}),
			show, "character special file 640 3:4 a:e5\n",
		},
		{"unbuffered is character", device(specs.LinuxDevice{Path: "/dev/it", Type: "u", Major: 10, Minor: 229}), show, "character special file 666 0:0 a:e5\n"},
		{"block", device(specs.LinuxDevice{Path: "/dev/it", Type: "b", Major: 7, Minor: 3, FileMode: mode}), show, "block special file 640 0:0 7:3\n"},
		{"fifo", device(specs.LinuxDevice{Path: "/dev/it", Type: "p", FileMode: mode, GID: pointer(uint32(9))}), show, "fifo 640 0:9 0:0\n"},
		{"below a directory", device(specs.LinuxDevice{Path: "/dev/deep/er", Type: "p"}), "test -p /dev/deep/er && echo yes", "yes\n"},
		{"outside of /dev", device(specs.LinuxDevice{Path: "/srv/it", Type: "p"}), "test -p /srv/it && echo yes", "yes\n"},
		{"those of every container", nil, "for d in null zero full random urandom tty; do stat -c '%t:%T %a' /dev/$d; done", "1:3 666\n1:5 666\n1:7 666\n1:8 666\n1:9 666\n5:0 666\n"},
		{"not allowed by its cgroup", device(specs.LinuxDevice{Path: "/dev/it", Type: "b", Major: 254}), "head -c 1 /dev/it 2>&1", "head: /dev/it: Operation not permitted\n"},
	})
}

func TestPathsAreMaskedAndReadOnly(t *testing.T) {
	inside(t, []row{
		{"masked", func(b *box) {
			b.file("srv/secret/file", "secret")
			b.file("srv/file", "secret")
			b.spec.Linux.MaskedPaths = []string{"/srv/secret", "/srv/file", "/proc/keys", "/no/such"}
		}, "ls /srv/secret; cat /srv/file; touch /srv/secret/x 2>/dev/null || echo ro; cat /proc/keys", "ro\n"},
		{"read-only", func(b *box) {
			b.file("srv/file", "text")
			b.spec.Linux.ReadonlyPaths = []string{"/srv", "/proc/sys", "/no/such"}
		}, "cat /srv/file; touch /srv/x 2>/dev/null || echo ro; (echo x > /proc/sys/kernel/domainname) 2>/dev/null || echo ro", "textro\nro\n"},
		{"root", func(b *box) { b.spec.Root.Readonly = true }, "touch /x 2>/dev/null || echo ro; touch /dev/shm/x && echo rw", "ro\nrw\n"},
		{"sysctl", func(b *box) {
			b.spec.Linux.Sysctl = map[string]string{"kernel.shm_rmid_forced": "1", "net/ipv4/ip_forward": "1"}
		}, "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_forward", "1\n1\n"},
		{
			"user namespace", func(b *box) { b.userNamespace(100000) },
			"id -u; awk '{print $1, $2, $3}' /proc/self/uid_map /proc/self/gid_map; stat -c %u /bin/busybox", "0\n0 100000 65536\n0 100000 65536\n0\n",
		},
	})
	refused(t, []row{
		{"sysctl of the host", func(b *box) { b.spec.Linux.Sysctl = map[string]string{"vm.overcommit_memory": "1"} }, "", "is not in a separate kernel namespace"},
		{"hostname without a namespace", func(b *box) {
			b.spec.Linux.Namespaces = []specs.LinuxNamespace{has(specs.MountNamespace, "")}
		}, "", "without a private UTS namespace"},
		{"namespace of another kind", func(b *box) {
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, has(specs.TimeNamespace, "/proc/self/ns/net"))
		}, "", "namespace"},
	})
}
