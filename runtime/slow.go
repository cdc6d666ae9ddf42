package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/livemigrate/migrate/runtime/internal/cgroup"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Bounds of a quota, in microseconds. The kernel takes no quota below the least and no period above the longest; the shorter
// the period, the less a service stutters.
const (
	leastQuota    = 1000
	usualPeriod   = 20_000
	longestPeriod = 1_000_000
)

var errNoCPU = errors.New("its cgroup has no cpu controller")

// ProcessorTime is what a cgroup allows of it, in microseconds.
type ProcessorTime struct {
	Quota  int64  `json:"quota"` // in each period; -1 for all
	Period uint64 `json:"period"`
	Burst  uint64 `json:"burst,omitempty"` // that may be saved up
}

// Slow lets the container use so many processors at most, such as 0.3, until FullSpeed; the state says so from then on. Its
// spec stays as it is, and with it what it gets elsewhere. An error where its cgroup has no cpu controller, or where a cgroup
// of its own below has a larger quota (cgroup v1): it is at full speed then. ErrNotRunning.
func (c *Container) Slow(cpus float64) error {
	if status, err := c.Status(); err != nil {
		return err
	} else if status != Running {
		return ErrNotRunning
	}
	state := c.State()
	full := state.ProcessorTime
	if !state.Slowed || full == nil {
		var err error
		if full, err = c.processorTime(); err != nil {
			return fmt.Errorf("slow the container down: %w", err)
		}
	}
	period := uint64(min(max(usualPeriod, leastQuota/max(cpus, 1e-6)), longestPeriod))
	quota := max(int64(cpus*float64(period)), leastQuota)
	if err := c.UpdateState(func(s *State) { s.Slowed, s.ProcessorTime = true, full }); err != nil {
		return err
	}
	none := uint64(0)
	cpu := &specs.LinuxCPU{Quota: &quota, Period: &period}
	if full.Burst > 0 {
		cpu.Burst = &none
	}
	err := c.setCPU(cpu)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("slow the container down: %w", err)
	if back := c.FullSpeed(); back != nil {
		return errors.Join(err, back)
	}
	return errors.Join(err, c.UpdateState(func(s *State) { s.Slowed, s.ProcessorTime = false, nil }))
}

// FullSpeed undoes Slow: the quota of before holds again. The container may be frozen. What the state says is left to the
// caller, who may have no time for it.
func (c *Container) FullSpeed() error {
	state := c.State()
	full := state.ProcessorTime
	if !state.Slowed || full == nil {
		return nil
	}
	cpu := &specs.LinuxCPU{Quota: &full.Quota, Period: &full.Period}
	if full.Burst > 0 {
		cpu.Burst = &full.Burst
	}
	if err := c.setCPU(cpu); err != nil {
		return fmt.Errorf("give the container its processor time back: %w", err)
	}
	return nil
}

// processorTime reads what the cgroup allows: a quota is in the spec in one of several places, or somebody else has set it.
func (c *Container) processorTime() (*ProcessorTime, error) {
	dir, quota, period, burst := c.group.Paths()["cpu"], "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us"
	if cgroup.V2() {
		dir, quota, period, burst = c.group.Paths()[""], "cpu.max", "", "cpu.max.burst"
	}
	if dir == "" {
		return nil, errNoCPU
	}
	var words []string
	for _, name := range []string{quota, period} {
		if name == "" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			return nil, errNoCPU
		}
		if err != nil {
			return nil, err
		}
		words = append(words, strings.Fields(string(text))...)
	}
	saved, err := os.ReadFile(filepath.Join(dir, burst))
	if err != nil && !errors.Is(err, os.ErrNotExist) { // the kernel has none before 5.14
		return nil, err
	}
	return parseProcessorTime(words, string(saved))
}

// parseProcessorTime takes quota and period as cgroup v2 or v1 has them.
func parseProcessorTime(words []string, burst string) (full *ProcessorTime, err error) {
	if len(words) != 2 {
		return nil, fmt.Errorf("parse processor time %q: not a quota and a period", words)
	}
	full = &ProcessorTime{Quota: -1}
	if words[0] != "max" {
		full.Quota, err = strconv.ParseInt(words[0], 10, 64)
	}
	if err == nil {
		full.Period, err = strconv.ParseUint(words[1], 10, 64)
	}
	if burst = strings.TrimSpace(burst); err == nil && burst != "" {
		full.Burst, err = strconv.ParseUint(burst, 10, 64)
	}
	if err != nil {
		return nil, fmt.Errorf("parse processor time: %w", err)
	}
	return full, nil
}

// CPUTime is what its processes have used.
func (c *Container) CPUTime() (time.Duration, error) {
	stats, err := c.group.Stats()
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(stats.CpuStats.CpuUsage.TotalUsage), nil
}

func (c *Container) setCPU(cpu *specs.LinuxCPU) error {
	if !c.hasController("cpu") {
		return errNoCPU
	}
	resources, err := cgroup.Resources(&specs.LinuxResources{CPU: cpu})
	if err != nil {
		return err
	}
	resources.SkipDevices = true
	return c.group.Set(resources)
}

// hasController tells whether the container has a cgroup in the hierarchy of a controller. On cgroup v2 the kernel tells.
func (c *Container) hasController(name string) bool {
	return cgroup.V2() || c.group.Paths()[name] != ""
}
