package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Options say whose cgroup it is and who makes it.
type Options struct {
	ID       string
	Systemd  bool
	Rootless bool // failing to make or enter a cgroup is no error
	OwnerUID *int // host uid the cgroup is handed to, nil to keep it
}

// Config translates a spec into what the cgroup managers take. It touches nothing.
func Config(spec *specs.Spec, o *Options) (*cgroups.Cgroup, error) {
	c := &cgroups.Cgroup{Systemd: o.Systemd, Rootless: o.Rootless, OwnerUID: o.OwnerUID}
	if err := place(c, spec, o); err != nil {
		return nil, err
	}
	if o.Systemd {
		props, err := systemdProperties(spec.Annotations)
		if err != nil {
			return nil, err
		}
		c.SystemdProps = props
	}
	var wanted *specs.LinuxResources
	if spec.Linux != nil {
		wanted = spec.Linux.Resources
	}
	resources, err := Resources(wanted)
	if err != nil {
		return nil, err
	}
	resources.Devices = append(resources.Devices, defaultDevices(spec)...)
	c.Resources = resources
	return c, nil
}

// place decides where the cgroup is. Below systemd a path is SLICE:PREFIX:NAME; without one the default names are used.
func place(c *cgroups.Cgroup, spec *specs.Spec, o *Options) error {
	path := ""
	if spec.Linux != nil {
		path = spec.Linux.CgroupsPath
	}
	switch {
	case o.Systemd && path == "":
		c.ScopePrefix, c.Name = "migrate", o.ID
	case o.Systemd:
		parts := strings.Split(path, ":")
		if len(parts) != 3 {
			return fmt.Errorf("expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got %q instead", path)
		}
		c.Parent, c.ScopePrefix, c.Name = parts[0], parts[1], parts[2]
	case path == "":
		c.Name = o.ID
	default:
		c.Path = lexicallyClean(path)
	}
	return nil
}

// lexicallyClean removes every ".." that would climb above the cgroup root, keeping a relative path relative.
func lexicallyClean(path string) string {
	path = filepath.Clean(path)
	if !filepath.IsAbs(path) {
		path = strings.TrimPrefix(filepath.Clean("/"+path), "/")
	}
	return path
}

// Resources translates limits. A nil or an empty part means "leave alone".
func Resources(r *specs.LinuxResources) (*cgroups.Resources, error) {
	out := &cgroups.Resources{}
	if r == nil {
		return out, nil
	}
	for i := range r.Devices {
		rule, err := deviceRule(&r.Devices[i])
		if err != nil {
			return nil, fmt.Errorf("device rule %d: %w", i, err)
		}
		out.Devices = append(out.Devices, rule)
	}
	setMemory(out, r.Memory)
	setCPU(out, r.CPU)
	setBlockIO(out, r.BlockIO)
	if r.Pids != nil {
		out.PidsLimit = r.Pids.Limit
	}
	for _, l := range r.HugepageLimits {
		out.HugetlbLimit = append(out.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: l.Pagesize, Limit: l.Limit})
	}
	for name, l := range r.Rdma {
		if out.Rdma == nil {
			out.Rdma = make(map[string]cgroups.LinuxRdma, len(r.Rdma))
		}
		out.Rdma[name] = cgroups.LinuxRdma{HcaHandles: l.HcaHandles, HcaObjects: l.HcaObjects}
	}
	if n := r.Network; n != nil {
		out.NetClsClassid = value(n.ClassID)
		for _, p := range n.Priorities {
			out.NetPrioIfpriomap = append(out.NetPrioIfpriomap, &cgroups.IfPrioMap{Interface: p.Name, Priority: int64(p.Priority)})
		}
	}
	if len(r.Unified) > 0 {
		out.Unified = maps.Clone(r.Unified)
	}
	return out, nil
}

func setMemory(out *cgroups.Resources, m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	out.Memory = value(m.Limit)
	out.MemoryReservation = value(m.Reservation)
	out.MemorySwap = value(m.Swap)
	out.MemorySwappiness = m.Swappiness
	out.OomKillDisable = value(m.DisableOOMKiller)
	out.MemoryCheckBeforeUpdate = value(m.CheckBeforeUpdate)
}

func setCPU(out *cgroups.Resources, c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	if c.Shares != nil {
		out.CpuShares = *c.Shares
		out.CpuWeight = cgroups.ConvertCPUSharesToCgroupV2Value(*c.Shares) // what cgroup v2 takes instead
	}
	out.CpuQuota, out.CpuPeriod, out.CpuBurst = value(c.Quota), value(c.Period), c.Burst
	out.CpuRtRuntime, out.CpuRtPeriod = value(c.RealtimeRuntime), value(c.RealtimePeriod)
	out.CpusetCpus, out.CpusetMems, out.CPUIdle = c.Cpus, c.Mems, c.Idle
}

func setBlockIO(out *cgroups.Resources, b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	out.BlkioWeight, out.BlkioLeafWeight = value(b.Weight), value(b.LeafWeight)
	for _, d := range b.WeightDevice {
		out.BlkioWeightDevice = append(out.BlkioWeightDevice, cgroups.NewWeightDevice(d.Major, d.Minor, value(d.Weight), value(d.LeafWeight)))
	}
	throttle := func(list []specs.LinuxThrottleDevice) (devs []*cgroups.ThrottleDevice) {
		for _, d := range list {
			devs = append(devs, cgroups.NewThrottleDevice(d.Major, d.Minor, d.Rate))
		}
		return devs
	}
	out.BlkioThrottleReadBpsDevice = throttle(b.ThrottleReadBpsDevice)
	out.BlkioThrottleWriteBpsDevice = throttle(b.ThrottleWriteBpsDevice)
	out.BlkioThrottleReadIOPSDevice = throttle(b.ThrottleReadIOPSDevice)
	out.BlkioThrottleWriteIOPSDevice = throttle(b.ThrottleWriteIOPSDevice)
}

func deviceRule(d *specs.LinuxDeviceCgroup) (*devices.Rule, error) {
	access := strings.ReplaceAll(d.Access, "a", "") // taken for a letter by some configs; it never had a meaning
	if access == "" {
		return nil, errors.New("device access field cannot be empty")
	}
	if strings.Trim(access, "rwm") != "" {
		return nil, fmt.Errorf("invalid device access %q: not of the letters r, w and m", d.Access)
	}
	rule := &devices.Rule{Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: devices.Permissions(access), Allow: d.Allow}
	switch d.Type {
	case "", "a":
		rule.Type = devices.WildcardDevice
	case "b":
		rule.Type = devices.BlockDevice
	case "c":
		rule.Type = devices.CharDevice
	default:
		return nil, fmt.Errorf("invalid cgroup device type %q", d.Type)
	}
	if d.Major != nil {
		rule.Major = *d.Major
	}
	if d.Minor != nil {
		rule.Minor = *d.Minor
	}
	return rule, nil
}

// defaultDevices are the devices every container may use, whatever its rules say: engines rely on it. They come after
// the rules of the config. A device that the config itself defines drops the default of the same path.
func defaultDevices(spec *specs.Spec) []*devices.Rule {
	type entry struct {
		path         string
		major, minor int64
	}
	defaults := []entry{
		{"/dev/null", 1, 3},
		{"/dev/random", 1, 8},
		{"/dev/full", 1, 7},
		{"/dev/tty", 5, 0},
		{"/dev/zero", 1, 5},
		{"/dev/urandom", 1, 9},
		{"", 136, devices.Wildcard}, // ptys
		{"", 5, 2},                  // /dev/ptmx
		{"", 10, 200},               // /dev/net/tun: runc allows it again since its removal broke users (opencontainers/runc#3468)
	}
	own := map[string]bool{}
	if spec.Linux != nil {
		for i := range spec.Linux.Devices {
			own[spec.Linux.Devices[i].Path] = true
		}
	}
	// mknod of anything is allowed: what was made can still not be opened.
	rules := []*devices.Rule{
		{Type: devices.CharDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "m", Allow: true},
		{Type: devices.BlockDevice, Major: devices.Wildcard, Minor: devices.Wildcard, Permissions: "m", Allow: true},
	}
	for _, d := range defaults {
		if d.path != "" && own[d.path] {
			continue
		}
		rules = append(rules, &devices.Rule{Type: devices.CharDevice, Major: d.major, Minor: d.minor, Permissions: "rwm", Allow: true})
	}
	return rules
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
