package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
)

// Stats are a container's figures; as JSON they are what runc's events verb prints.
type Stats struct {
	CPU               CPUStats                `json:"cpu"`
	CPUSet            CPUSetStats             `json:"cpuset"`
	Memory            MemoryStats             `json:"memory"`
	Pids              PidsStats               `json:"pids"`
	Blkio             BlkioStats              `json:"blkio"`
	Hugetlb           map[string]HugetlbStats `json:"hugetlb"`
	IntelRdt          IntelRdtStats           `json:"intel_rdt"`
	NetworkInterfaces []*InterfaceStats       `json:"network_interfaces"`
}

// PSIStats is how long tasks waited for a resource.
type PSIStats = cgroups.PSIStats

// CPUStats is the time used, and withheld.
type CPUStats struct {
	Usage      CPUUsage   `json:"usage,omitzero"`
	Throttling Throttling `json:"throttling,omitzero"`
	PSI        *PSIStats  `json:"psi,omitempty"`
}

// CPUUsage is in nanoseconds.
type CPUUsage struct {
	Total        uint64   `json:"total,omitempty"`
	Percpu       []uint64 `json:"percpu,omitempty"`
	PercpuKernel []uint64 `json:"percpu_kernel,omitempty"`
	PercpuUser   []uint64 `json:"percpu_user,omitempty"`
	Kernel       uint64   `json:"kernel"`
	User         uint64   `json:"user"`
}

// Throttling counts the periods in which the quota was used up; the time is in nanoseconds.
type Throttling struct {
	Periods          uint64 `json:"periods,omitempty"`
	ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
	ThrottledTime    uint64 `json:"throttledTime,omitempty"`
}

// CPUSetStats are the settings of the cpuset controller.
type CPUSetStats struct {
	CPUs                  []uint16 `json:"cpus,omitempty"`
	CPUExclusive          uint64   `json:"cpu_exclusive"`
	Mems                  []uint16 `json:"mems,omitempty"`
	MemHardwall           uint64   `json:"mem_hardwall"`
	MemExclusive          uint64   `json:"mem_exclusive"`
	MemoryMigrate         uint64   `json:"memory_migrate"`
	MemorySpreadPage      uint64   `json:"memory_spread_page"`
	MemorySpreadSlab      uint64   `json:"memory_spread_slab"`
	MemoryPressure        uint64   `json:"memory_pressure"`
	SchedLoadBalance      uint64   `json:"sched_load_balance"`
	SchedRelaxDomainLevel int64    `json:"sched_relax_domain_level"`
}

// MemoryStats is in bytes.
type MemoryStats struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     MemoryEntry       `json:"usage,omitzero"`
	Swap      MemoryEntry       `json:"swap,omitzero"`
	Kernel    MemoryEntry       `json:"kernel,omitzero"`
	KernelTCP MemoryEntry       `json:"kernelTCP,omitzero"`
	Raw       map[string]uint64 `json:"raw,omitempty"`
	PSI       *PSIStats         `json:"psi,omitempty"`
}

// MemoryEntry is one kind of memory in bytes.
type MemoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// PidsStats counts tasks.
type PidsStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

// BlkioStats are by device and operation.
type BlkioStats struct {
	IoServiceBytesRecursive []BlkioEntry `json:"ioServiceBytesRecursive,omitempty"`
	IoServicedRecursive     []BlkioEntry `json:"ioServicedRecursive,omitempty"`
	IoQueuedRecursive       []BlkioEntry `json:"ioQueueRecursive,omitempty"`
	IoServiceTimeRecursive  []BlkioEntry `json:"ioServiceTimeRecursive,omitempty"`
	IoWaitTimeRecursive     []BlkioEntry `json:"ioWaitTimeRecursive,omitempty"`
	IoMergedRecursive       []BlkioEntry `json:"ioMergedRecursive,omitempty"`
	IoTimeRecursive         []BlkioEntry `json:"ioTimeRecursive,omitempty"`
	SectorsRecursive        []BlkioEntry `json:"sectorsRecursive,omitempty"`
	PSI                     *PSIStats    `json:"psi,omitempty"`
}

// BlkioEntry is one device and operation.
type BlkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

// HugetlbStats is one page size, in bytes.
type HugetlbStats struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// InterfaceStats are one network interface's counters, as the container sees them.
type InterfaceStats struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Stats measures the container.
func (c *Container) Stats() (*Stats, error) {
	have, err := c.group.Stats()
	if err != nil {
		return nil, fmt.Errorf("unable to get container cgroup stats: %w", err)
	}
	s := convertStats(have)
	if s.IntelRdt, err = c.rdtStats(); err != nil {
		return nil, err
	}
	if network := c.State().Network; network != nil && network.HostEnd != "" {
		counters, err := hostEndStats(network.HostEnd)
		if err != nil {
			return nil, fmt.Errorf("unable to get network stats for interface %q: %w", network.HostEnd, err)
		}
		s.NetworkInterfaces = append(s.NetworkInterfaces, counters)
	}
	return s, nil
}

func convertStats(have *cgroups.Stats) *Stats {
	cpu, memory, blkio := &have.CpuStats, &have.MemoryStats, &have.BlkioStats
	s := &Stats{
		CPU: CPUStats{
			Usage: CPUUsage{
				Total:        cpu.CpuUsage.TotalUsage,
				Percpu:       cpu.CpuUsage.PercpuUsage,
				PercpuKernel: cpu.CpuUsage.PercpuUsageInKernelmode,
				PercpuUser:   cpu.CpuUsage.PercpuUsageInUsermode,
				Kernel:       cpu.CpuUsage.UsageInKernelmode,
				User:         cpu.CpuUsage.UsageInUsermode,
			},
			Throttling: Throttling{
				Periods:          cpu.ThrottlingData.Periods,
				ThrottledPeriods: cpu.ThrottlingData.ThrottledPeriods,
				ThrottledTime:    cpu.ThrottlingData.ThrottledTime,
			},
			PSI: cpu.PSI,
		},
		CPUSet: CPUSetStats(have.CPUSetStats),
		Memory: MemoryStats{
			Cache:     memory.Cache,
			Usage:     memoryEntry(memory.Usage),
			Swap:      memoryEntry(memory.SwapUsage),
			Kernel:    memoryEntry(memory.KernelUsage),
			KernelTCP: memoryEntry(memory.KernelTCPUsage),
			Raw:       memory.Stats,
			PSI:       memory.PSI,
		},
		Pids: PidsStats{Current: have.PidsStats.Current, Limit: have.PidsStats.Limit},
		Blkio: BlkioStats{
			IoServiceBytesRecursive: blkioEntries(blkio.IoServiceBytesRecursive),
			IoServicedRecursive:     blkioEntries(blkio.IoServicedRecursive),
			IoQueuedRecursive:       blkioEntries(blkio.IoQueuedRecursive),
			IoServiceTimeRecursive:  blkioEntries(blkio.IoServiceTimeRecursive),
			IoWaitTimeRecursive:     blkioEntries(blkio.IoWaitTimeRecursive),
			IoMergedRecursive:       blkioEntries(blkio.IoMergedRecursive),
			IoTimeRecursive:         blkioEntries(blkio.IoTimeRecursive),
			SectorsRecursive:        blkioEntries(blkio.SectorsRecursive),
			PSI:                     blkio.PSI,
		},
		Hugetlb: map[string]HugetlbStats{},
	}
	for size, h := range have.HugetlbStats {
		s.Hugetlb[size] = HugetlbStats{Usage: h.Usage, Max: h.MaxUsage, Failcnt: h.Failcnt}
	}
	return s
}

func memoryEntry(m cgroups.MemoryData) MemoryEntry {
	return MemoryEntry{Limit: m.Limit, Usage: m.Usage, Max: m.MaxUsage, Failcnt: m.Failcnt}
}

func blkioEntries(list []cgroups.BlkioStatEntry) []BlkioEntry {
	out := make([]BlkioEntry, 0, len(list))
	for _, e := range list {
		out = append(out, BlkioEntry(e))
	}
	return out
}

// hostEndStats reads the counters of the host's end of a veth: what it sent, the container received.
func hostEndStats(name string) (*InterfaceStats, error) {
	s := &InterfaceStats{Name: name}
	for file, counter := range map[string]*uint64{
		"tx_bytes": &s.RxBytes, "tx_packets": &s.RxPackets, "tx_errors": &s.RxErrors, "tx_dropped": &s.RxDropped,
		"rx_bytes": &s.TxBytes, "rx_packets": &s.TxPackets, "rx_errors": &s.TxErrors, "rx_dropped": &s.TxDropped,
	} {
		text, err := os.ReadFile("/sys/class/net/" + name + "/statistics/" + file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // /sys shows the network namespace it was mounted in, which may not be ours
		}
		if err != nil {
			return nil, err
		}
		if *counter, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err != nil {
			return nil, err
		}
	}
	return s, nil
}
