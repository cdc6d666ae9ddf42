package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/testutil"
)

// A limit that is asked for and not set is found out when the machine is full. Each flag is given by itself, in an order in
// which the kernel takes them.
func TestUpdateSetsWhatEachFlagNames(t *testing.T) {
	testutil.CgroupV1(t)
	h := newContainerHost(t, forever)
	id := h.id("flags")
	h.ok("run", "-d", id)
	group := groups(t, h.state(id).Pid)
	for _, c := range []struct {
		flag, value       string
		file, want        string // CONTROLLER/FILE and what it says then
		notOnEveryMachine bool
	}{
		{flag: "cpu-share", value: "512", file: "cpu/cpu.shares", want: "512"},
		{flag: "cpu-period", value: "200000", file: "cpu/cpu.cfs_period_us", want: "200000"},
		{flag: "cpu-quota", value: "50000", file: "cpu/cpu.cfs_quota_us", want: "50000"},
		{flag: "cpu-burst", value: "1000", file: "cpu/cpu.cfs_burst_us", want: "1000"},
		{flag: "cpu-rt-period", value: "500000", file: "cpu/cpu.rt_period_us", want: "500000", notOnEveryMachine: true},
		{flag: "cpu-rt-runtime", value: "1000", file: "cpu/cpu.rt_runtime_us", want: "1000", notOnEveryMachine: true},
		{flag: "cpu-idle", value: "1", file: "cpu/cpu.idle", want: "1"},
		{flag: "cpuset-cpus", value: "0", file: "cpuset/cpuset.cpus", want: "0"},
		{flag: "cpuset-mems", value: "0", file: "cpuset/cpuset.mems", want: "0"},
		{flag: "memory", value: "64m", file: "memory/memory.limit_in_bytes", want: "67108864"},
		{flag: "memory-reservation", value: "32m", file: "memory/memory.soft_limit_in_bytes", want: "33554432"},
		{flag: "memory-swap", value: "-1", file: "memory/memory.memsw.limit_in_bytes", want: "9223372036854771712"},
		{flag: "pids-limit", value: "30", file: "pids/pids.max", want: "30"},
		{flag: "blkio-weight", value: "500", file: "blkio/blkio.bfq.weight", want: "500", notOnEveryMachine: true},
	} {
		controller, file := filepath.Split(c.file)
		got := h.run("update", "--"+c.flag, c.value, id)
		if got.code != 0 && c.notOnEveryMachine && strings.Contains(message(t, got.stderr), file) {
			t.Logf("this machine has no %s: %s", file, message(t, got.stderr))
			continue
		}
		if got.code != 0 || got.stderr != "" {
			t.Errorf("update --%s %s: exit code %d: %s", c.flag, c.value, got.code, got.stderr)
		} else if says := cgroupFile(t, controller, group[strings.TrimSuffix(controller, "/")], file); says != c.want {
			t.Errorf("after update --%s %s %s is %q, want %q", c.flag, c.value, file, says, c.want)
		}
	}
}

// groups are the cgroups of a process by their controllers.
func groups(t *testing.T, pid int) map[string]string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]string{}
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for controller := range strings.SplitSeq(fields[1], ",") {
			list[controller] = fields[2]
		}
	}
	return list
}
