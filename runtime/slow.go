package runtime

import (
	"errors"
	"fmt"
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
	kernelPeriod  = 100_000 // where nothing is set
)

// Slow lets the container use so many processors at most, such as 0.3, until FullSpeed; the state says so from then on. Its
// spec stays as it is, and with it what it gets elsewhere. An error where its cgroup has no cpu controller, or where a cgroup
// of its own below has a larger quota (cgroup v1). ErrNotRunning.
func (c *Container) Slow(cpus float64) error {
	if status, err := c.Status(); err != nil {
		return err
	} else if status != Running {
		return ErrNotRunning
	}
	period := uint64(min(max(usualPeriod, leastQuota/max(cpus, 1e-6)), longestPeriod))
	quota := max(int64(cpus*float64(period)), leastQuota)
	if err := c.UpdateState(func(s *State) { s.Slowed = true }); err != nil {
		return err
	}
	none := uint64(0)
	cpu := &specs.LinuxCPU{Quota: &quota, Period: &period}
	if c.burst() != nil {
		cpu.Burst = &none
	}
	if err := c.setCPU(cpu); err != nil {
		return errors.Join(fmt.Errorf("slow the container down: %w", err), c.FullSpeed())
	}
	return nil
}

// FullSpeed undoes Slow: the quota of the spec holds again. The container may be frozen. What the state says is left to the
// caller, who may have no time for it.
func (c *Container) FullSpeed() error {
	if !c.State().Slowed {
		return nil
	}
	quota, period := int64(-1), uint64(kernelPeriod)
	if r := c.Spec().Linux.Resources; r != nil && r.CPU != nil {
		if r.CPU.Quota != nil && *r.CPU.Quota != 0 {
			quota = *r.CPU.Quota
		}
		if r.CPU.Period != nil && *r.CPU.Period != 0 {
			period = *r.CPU.Period
		}
	}
	if err := c.setCPU(&specs.LinuxCPU{Quota: &quota, Period: &period, Burst: c.burst()}); err != nil {
		return fmt.Errorf("give the container its processor time back: %w", err)
	}
	return nil
}

// CPUTime is what its processes have used.
func (c *Container) CPUTime() (time.Duration, error) {
	stats, err := c.group.Stats()
	if err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(stats.CpuStats.CpuUsage.TotalUsage), nil
}

func (c *Container) burst() *uint64 {
	if r := c.Spec().Linux.Resources; r != nil && r.CPU != nil {
		return r.CPU.Burst
	}
	return nil
}

func (c *Container) setCPU(cpu *specs.LinuxCPU) error {
	if !c.hasController("cpu") {
		return errors.New("its cgroup has no cpu controller")
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
