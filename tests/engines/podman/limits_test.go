package podman

import (
	"path/filepath"
	"testing"

	"github.com/livemigrate/migrate/internal/testutil"
)

// limit is a file of the container's cgroup on the host.
func (c *container) limit(controller, file string) string {
	c.Helper()
	return read(c.T, filepath.Join(hierarchies, controller, c.is(".State.CgroupPath"), file))
}

func TestLimitsReachTheCgroup(t *testing.T) {
	testutil.CgroupV1(t) // the runtime's own tests in the virtual machine read version 2's files
	e := newEngine(t)
	c := e.start("c", "sleep 100", "--memory", "64m", "--memory-reservation", "32m", "--cpus", "0.5", "--cpu-shares", "300",
		"--cpuset-cpus", "0", "--pids-limit", "33")
	for _, want := range []struct{ controller, file, value string }{
		{"memory", "memory.limit_in_bytes", "67108864"},
		{"memory", "memory.soft_limit_in_bytes", "33554432"},
		{"cpu", "cpu.cfs_quota_us", "50000"},
		{"cpu", "cpu.cfs_period_us", "100000"},
		{"cpu", "cpu.shares", "300"},
		{"cpuset", "cpuset.cpus", "0"},
		{"pids", "pids.max", "33"},
	} {
		e.same(want.file, c.limit(want.controller, want.file), want.value)
	}
	e.same("seen from inside", c.exec("cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"), "67108864")
}

func TestUpdateChangesARunningContainer(t *testing.T) {
	testutil.CgroupV1(t) // the runtime's own tests in the virtual machine read version 2's files
	e := newEngine(t)
	c := e.start("c", "sleep 100", "--memory", "64m")
	e.do("update", "--memory", "32m", "--cpus", "0.25", c.name)
	e.same("memory", c.limit("memory", "memory.limit_in_bytes"), "33554432")
	e.same("cpu", c.limit("cpu", "cpu.cfs_quota_us"), "25000")
}

func TestMemoryLimitKills(t *testing.T) {
	e := newEngine(t)
	got := e.once("x=aaaaaaaa; while :; do x=$x$x; done", "--memory", "16m", "--memory-swap", "16m")
	if got.code != 137 {
		t.Errorf("exit code %d, want 137", got.code)
	}
}

func TestPidsLimitHolds(t *testing.T) {
	e := newEngine(t)
	got := e.once("for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait", "--pids-limit", "5")
	e.holds("stderr", got.stderr, "fork")
}

func TestUlimitsHold(t *testing.T) {
	e := newEngine(t)
	got := e.says("ulimit -n; ulimit -Hn; ulimit -c; ulimit -s", "--ulimit", "nofile=100:200", "--ulimit", "core=0", "--ulimit", "stack=1048576", "--ulimit", "nproc=1000")
	e.same("ulimits", got, "100\n200\n0\n1024")
}

func TestDevicesAreThoseAsked(t *testing.T) {
	e := newEngine(t)
	e.same("a device", e.says("head -c 3 /dev/nought | wc -c; stat -c %t:%T /dev/nought", "--device", "/dev/zero:/dev/nought:r"), "3\n1:5")
	// Root may open it, by its mode: the cgroup must not let it.
	e.says(": >/dev/words", "--device", "/dev/kmsg:/dev/words:rw")
	if got := e.once(": >/dev/words", "--device", "/dev/kmsg:/dev/words:r"); got.code == 0 {
		t.Error("a device given for reading could be opened for writing")
	}
	if got := e.once("mknod /dev/more c 1 11 && head -c 1 /dev/more", "--cap-add", "mknod"); got.code == 0 {
		t.Error("a device that was not given could be read")
	}
}

func TestOOMScoreIsTheProgramsOwn(t *testing.T) {
	e := newEngine(t)
	e.same("oom_score_adj", e.says("cat /proc/self/oom_score_adj", "--oom-score-adj", "300"), "300")
}
