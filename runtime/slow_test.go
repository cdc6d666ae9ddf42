package runtime

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/runtime/internal/cgroup"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// limits are a cgroup's files of processor time.
func limits(t *testing.T, c *Container) map[string]string {
	t.Helper()
	dir, names := c.group.Paths()["cpu"], []string{"cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us"}
	if cgroup.V2() {
		dir, names = c.group.Paths()[""], []string{"cpu.max", "cpu.max.burst"}
	}
	found := map[string]string{}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(dir, name))
		testutil.Kernel(t, err == nil, "a cpu controller with bursts")
		found[filepath.Join(dir, name)] = strings.TrimSpace(string(text))
	}
	return found
}

// setLimits writes them as somebody else would.
func setLimits(t *testing.T, c *Container, values ...string) {
	t.Helper()
	for i, path := range slices.Sorted(maps.Keys(limits(t, c))) { // burst, then period, then quota; or quota, then burst
		if i < len(values) {
			if err := os.WriteFile(path, []byte(values[i]), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestFullSpeedIsWhatItWasBefore(t *testing.T) {
	r := testRuntime(t)
	quota, period, burst := int64(80_000), uint64(200_000), uint64(10_000)
	type limit struct {
		spec *specs.LinuxResources
		set  func(*testing.T, *Container)
	}
	table := map[string]limit{
		"no limit":      {},
		"by its config": {spec: &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period, Burst: &burst}}},
		"by somebody else": {set: func(t *testing.T, c *Container) {
			if cgroup.V2() {
				setLimits(t, c, "70000 90000", "5000")
				return
			}
			setLimits(t, c, "0", "90000", "70000")
			setLimits(t, c, "5000")
		}},
	}
	if cgroup.V2() {
		table["unified"] = limit{set: func(t *testing.T, c *Container) {
			if err := c.Set(&specs.LinuxResources{Unified: map[string]string{"cpu.max": "60000 100000", "cpu.max.burst": "700"}}, nil); err != nil {
				t.Fatal(err)
			}
		}}
	}
	for name, tc := range table {
		t.Run(name, func(t *testing.T) {
			c := testContainer(t, r, testPlan(t, forever, func(s *specs.Spec) {
				if tc.spec != nil {
					s.Linux.Resources = tc.spec
				}
			}), true)
			if tc.set != nil {
				tc.set(t, c)
			}
			before := limits(t, c)
			for _, cpus := range []float64{0.3, 0.1} {
				if err := c.Slow(cpus); err != nil {
					t.Fatal(err)
				}
				if now := limits(t, c); maps.Equal(now, before) || !c.State().Slowed {
					t.Errorf("it is not slowed down: %v", now)
				}
			}
			again, err := r.Load(c.ID()) // as the next command would
			if err != nil {
				t.Fatal(err)
			}
			if err := again.FullSpeed(); err != nil {
				t.Fatal(err)
			}
			if now := limits(t, c); !maps.Equal(now, before) {
				t.Errorf("it has %v, had %v", now, before)
			}
		})
	}
}

func TestLimitThatIsSetWhileSlowedHolds(t *testing.T) {
	c := testContainer(t, testRuntime(t), testPlan(t, forever), true)
	if err := c.Slow(0.3); err != nil {
		t.Fatal(err)
	}
	quota, period := int64(40_000), uint64(100_000)
	if err := c.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}}, nil); err != nil {
		t.Fatal(err)
	}
	set := limits(t, c)
	if err := c.Slow(0.1); err != nil {
		t.Fatal(err)
	}
	if err := c.FullSpeed(); err != nil {
		t.Fatal(err)
	}
	if now := limits(t, c); !maps.Equal(now, set) {
		t.Errorf("it has %v, was set to %v", now, set)
	}
}

// Its own cgroup below has more than it would: the kernel refuses (cgroup v1).
func TestContainerThatCannotBeSlowedIsAtFullSpeed(t *testing.T) {
	if cgroup.V2() {
		return
	}
	c := testContainer(t, testRuntime(t), testPlan(t, forever), true)
	before := limits(t, c)
	below := filepath.Join(c.group.Paths()["cpu"], "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(below, "cpu.cfs_quota_us"), []byte("90000"), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Slow(0.3); err == nil {
		t.Error("it was slowed down")
	}
	if now := limits(t, c); !maps.Equal(now, before) || c.State().Slowed {
		t.Errorf("it has %v, had %v; slowed: %v", now, before, c.State().Slowed)
	}
}

func TestProcessorTimeOfBothVersions(t *testing.T) {
	for _, tc := range []struct {
		words []string
		burst string
		want  ProcessorTime // with no period where it is an error
	}{
		{[]string{"max", "100000"}, "0\n", ProcessorTime{Quota: -1, Period: 100000}},
		{[]string{"-1", "100000"}, "", ProcessorTime{Quota: -1, Period: 100000}},
		{[]string{"5000", "20000"}, "100\n", ProcessorTime{Quota: 5000, Period: 20000, Burst: 100}},
		{[]string{"5000"}, "", ProcessorTime{}},
		{[]string{"all", "20000"}, "", ProcessorTime{}},
		{[]string{"5000", "20000"}, "much", ProcessorTime{}},
	} {
		got, err := parseProcessorTime(tc.words, tc.burst)
		if tc.want.Period == 0 {
			if err == nil {
				t.Errorf("%q, %q is %v", tc.words, tc.burst, *got)
			}
			continue
		}
		if err != nil || *got != tc.want {
			t.Errorf("%q, %q is %v, %v", tc.words, tc.burst, got, err)
		}
	}
}
