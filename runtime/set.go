package runtime

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/livemigrate/migrate/runtime/internal/cgroup"
	"github.com/livemigrate/migrate/runtime/internal/rdt"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Set changes limits of a container that is not stopped, and the schemata of L3 cache and memory bandwidth in shares, nil
// for none. What is not set stays as it is; device rules are never changed, so that what others added to them stays. When
// a part fails, all that was changed is set back. The new limits become the spec's. ErrNotRunning.
func (c *Container) Set(r *specs.LinuxResources, shares *specs.LinuxIntelRdt) error {
	return c.set(rdt.Root(), r, shares)
}

// set is Set with the resctrl filesystem at root.
func (c *Container) set(root string, r *specs.LinuxResources, shares *specs.LinuxIntelRdt) error {
	if err := c.checkShares(root, shares); err != nil { // first: it is what most machines lack
		return err
	}
	status, err := c.Status()
	if err != nil {
		return err
	}
	if status == Stopped {
		return ErrNotRunning
	}
	state := c.State()
	before := state.Plan.Spec.Linux.Resources
	if before == nil {
		before = &specs.LinuxResources{}
	}
	after := mergeResources(before, r)
	sharesBack := func() error { return nil }
	if err = c.apply(after); err == nil {
		sharesBack, err = c.setShares(root, shares)
	}
	full := state.ProcessorTime
	if err == nil && state.Slowed && limitsCPU(after) {
		full, err = c.processorTime() // it is not what it was before Slow any more
	}
	if err == nil {
		err = c.UpdateState(func(s *State) {
			s.ProcessorTime = full
			s.Plan.Spec.Linux.Resources = after
			mergeShares(s.Plan.Spec.Linux.IntelRdt, shares)
		})
	}
	if err == nil {
		return nil
	}
	err = errors.Join(err, sharesBack())
	if back := c.apply(before); back != nil {
		err = errors.Join(err, fmt.Errorf("set limits back: %w", back))
	}
	return err
}

func (c *Container) apply(r *specs.LinuxResources) error {
	resources, err := cgroup.Resources(r)
	if err != nil {
		return err
	}
	resources.SkipDevices = true
	return c.group.Set(resources)
}

// limitsCPU tells whether apply sets a quota.
func limitsCPU(r *specs.LinuxResources) bool {
	if r.Unified["cpu.max"] != "" || r.Unified["cpu.max.burst"] != "" {
		return true
	}
	return r.CPU != nil && (r.CPU.Quota != nil || r.CPU.Period != nil || r.CPU.Burst != nil)
}

// mergeResources returns old with what is set in change.
func mergeResources(old, change *specs.LinuxResources) *specs.LinuxResources {
	out := *old
	out.Memory = mergeMemory(old.Memory, change.Memory)
	out.CPU = mergeCPU(old.CPU, change.CPU)
	out.BlockIO = mergeBlockIO(old.BlockIO, change.BlockIO)
	if change.Pids != nil && change.Pids.Limit != nil {
		out.Pids = change.Pids
	}
	if len(change.HugepageLimits) > 0 {
		out.HugepageLimits = change.HugepageLimits
	}
	if change.Network != nil {
		out.Network = change.Network
	}
	if len(change.Rdma) > 0 {
		out.Rdma = change.Rdma
	}
	if len(change.Unified) > 0 {
		out.Unified = maps.Clone(old.Unified)
		if out.Unified == nil {
			out.Unified = map[string]string{}
		}
		maps.Copy(out.Unified, change.Unified)
	}
	return &out
}

// mergeMemory forgets a limit for swap when the limit for memory is lifted: the kernel takes none without the other.
func mergeMemory(old, change *specs.LinuxMemory) *specs.LinuxMemory {
	if old == nil || change == nil {
		return either(change, old)
	}
	out := *old
	replace(&out.Limit, change.Limit)
	replace(&out.Reservation, change.Reservation)
	replace(&out.Swap, change.Swap)
	if change.Limit != nil && *change.Limit == -1 && change.Swap == nil {
		out.Swap = nil
	}
	replace(&out.Swappiness, change.Swappiness)
	replace(&out.DisableOOMKiller, change.DisableOOMKiller)
	replace(&out.CheckBeforeUpdate, change.CheckBeforeUpdate)
	return &out
}

// mergeCPU keeps the other half when only one of quota and period changes: some managers need both. Shares cannot be
// set while the cgroup is idle, and are forgotten.
func mergeCPU(old, change *specs.LinuxCPU) *specs.LinuxCPU {
	if old == nil || change == nil {
		return either(change, old)
	}
	out := *old
	replace(&out.Shares, change.Shares)
	replace(&out.Quota, change.Quota)
	replace(&out.Burst, change.Burst)
	replace(&out.Period, change.Period)
	replace(&out.RealtimeRuntime, change.RealtimeRuntime)
	replace(&out.RealtimePeriod, change.RealtimePeriod)
	replace(&out.Idle, change.Idle)
	if change.Idle != nil && change.Shares == nil {
		out.Shares = nil
	}
	if change.Cpus != "" {
		out.Cpus = change.Cpus
	}
	if change.Mems != "" {
		out.Mems = change.Mems
	}
	return &out
}

func mergeBlockIO(old, change *specs.LinuxBlockIO) *specs.LinuxBlockIO {
	if old == nil || change == nil {
		return either(change, old)
	}
	out := *old
	replace(&out.Weight, change.Weight)
	replace(&out.LeafWeight, change.LeafWeight)
	out.WeightDevice = mergeDevices(old.WeightDevice, change.WeightDevice, func(d *specs.LinuxWeightDevice) [2]int64 { return [2]int64{d.Major, d.Minor} })
	device := func(d *specs.LinuxThrottleDevice) [2]int64 { return [2]int64{d.Major, d.Minor} }
	out.ThrottleReadBpsDevice = mergeDevices(old.ThrottleReadBpsDevice, change.ThrottleReadBpsDevice, device)
	out.ThrottleWriteBpsDevice = mergeDevices(old.ThrottleWriteBpsDevice, change.ThrottleWriteBpsDevice, device)
	out.ThrottleReadIOPSDevice = mergeDevices(old.ThrottleReadIOPSDevice, change.ThrottleReadIOPSDevice, device)
	out.ThrottleWriteIOPSDevice = mergeDevices(old.ThrottleWriteIOPSDevice, change.ThrottleWriteIOPSDevice, device)
	return &out
}

// mergeDevices replaces the entry of a device that is there already and appends the others. A device that is there twice
// has its last entry replaced: that is the one that holds.
func mergeDevices[T any](old, change []T, device func(*T) [2]int64) []T {
	out := slices.Clone(old)
next:
	for i := range change {
		for j := range slices.Backward(out) {
			if device(&out[j]) == device(&change[i]) {
				out[j] = change[i]
				continue next
			}
		}
		out = append(out, change[i])
	}
	return out
}

func replace[T any](to **T, with *T) {
	if with != nil {
		*to = with
	}
}

func either[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}
