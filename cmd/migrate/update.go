package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newUpdateCommand(g *globals) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "update [flags] CONTAINER",
		Short: "Update container resource constraints",
		Long: `Update the resource constraints of a container. What is not given stays as it is. With --resources the limits are
read from a file in the form of linux.resources in config.json, and all other flags are ignored.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.container(args[0])
			if err != nil {
				return err
			}
			resources, err := wantedResources(cmd, file)
			if err != nil {
				return err
			}
			if m := resources.Memory; m != nil && (m.Kernel != nil || m.KernelTCP != nil) { //nolint:staticcheck // SA1019: still given by engines.
				g.log.Warn("Kernel memory settings are ignored and will be removed")
			}
			var shares *specs.LinuxIntelRdt
			if cmd.Flags().Changed("l3-cache-schema") || cmd.Flags().Changed("mem-bw-schema") {
				p := &parser{flags: cmd.Flags()}
				shares = &specs.LinuxIntelRdt{L3CacheSchema: p.text("l3-cache-schema"), MemBwSchema: p.text("mem-bw-schema")}
			}
			return c.Set(resources, shares)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&file, "resources", "r", "", "path to the file containing the resources to update or '-' to read from the standard input")
	flags.Uint16("blkio-weight", 0, "specifies per cgroup weight, range is from 10 to 1000")
	for name, usage := range map[string]string{
		"cpu-period":         "CPU CFS period to be used for hardcapping (in usecs). 0 to use system default",
		"cpu-quota":          "CPU CFS hardcap limit (in usecs). Allowed cpu time in a given period",
		"cpu-burst":          "CPU CFS hardcap burst limit (in usecs). Allowed accumulated cpu time additionally for burst a given period",
		"cpu-share":          "CPU shares (relative weight vs. other containers)",
		"cpu-rt-period":      "CPU realtime period to be used for hardcapping (in usecs). 0 to use system default",
		"cpu-rt-runtime":     "CPU realtime hardcap limit (in usecs). Allowed cpu time in a given period",
		"cpu-idle":           "set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE",
		"cpuset-cpus":        "CPU(s) to use",
		"cpuset-mems":        "memory node(s) to use",
		"kernel-memory":      "(obsoleted; do not use)",
		"kernel-memory-tcp":  "(obsoleted; do not use)",
		"memory":             "memory limit (in bytes)",
		"memory-reservation": "memory reservation or soft_limit (in bytes)",
		"memory-swap":        "total memory usage (memory + swap); set '-1' to enable unlimited swap",
		"l3-cache-schema":    "the string of Intel RDT/CAT L3 cache schema",
		"mem-bw-schema":      "the string of Intel RDT/MBA memory bandwidth schema",
	} {
		flags.String(name, "", usage)
	}
	flags.Int64("pids-limit", 0, "maximum number of pids allowed in the container")
	for _, name := range []string{"kernel-memory", "kernel-memory-tcp"} {
		_ = flags.MarkHidden(name)
	}
	return cmd
}

func wantedResources(cmd *cobra.Command, file string) (*specs.LinuxResources, error) {
	r := &specs.LinuxResources{}
	var err error
	if file != "" {
		err = readResources(cmd.InOrStdin(), file, r)
	} else {
		err = flagResources(cmd.Flags(), r)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

func readResources(stdin io.Reader, file string, r *specs.LinuxResources) error {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	if err := json.NewDecoder(in).Decode(r); err != nil {
		return fmt.Errorf("parse resources: %w", err)
	}
	return nil
}

func flagResources(flags *pflag.FlagSet, r *specs.LinuxResources) error {
	cpu, memory := &specs.LinuxCPU{}, &specs.LinuxMemory{}
	r.CPU, r.Memory = cpu, memory
	p := &parser{flags: flags}
	cpu.Cpus, cpu.Mems = p.text("cpuset-cpus"), p.text("cpuset-mems")
	cpu.Burst, cpu.Period = p.unsigned("cpu-burst"), p.unsigned("cpu-period")
	cpu.RealtimePeriod, cpu.Shares = p.unsigned("cpu-rt-period"), p.unsigned("cpu-share")
	cpu.Quota, cpu.RealtimeRuntime, cpu.Idle = p.signed("cpu-quota"), p.signed("cpu-rt-runtime"), p.signed("cpu-idle")
	memory.Limit, memory.Swap, memory.Reservation = p.size("memory"), p.size("memory-swap"), p.size("memory-reservation")
	memory.Kernel, memory.KernelTCP = p.size("kernel-memory"), p.size("kernel-memory-tcp") //nolint:staticcheck // SA1019: still given by engines.
	if weight, err := flags.GetUint16("blkio-weight"); err == nil && weight != 0 {
		r.BlockIO = &specs.LinuxBlockIO{Weight: &weight}
	}
	if flags.Changed("pids-limit") {
		limit, err := flags.GetInt64("pids-limit")
		if err != nil {
			return err
		}
		r.Pids = &specs.LinuxPids{Limit: &limit}
	}
	return p.err
}

// parser reads flags that are texts so that "not given" is told from zero; it keeps the first error.
type parser struct {
	flags *pflag.FlagSet
	err   error
}

func (p *parser) text(name string) string {
	value, err := p.flags.GetString(name)
	p.fail(name, err)
	return value
}

func (p *parser) unsigned(name string) *uint64 {
	text := p.text(name)
	if text == "" {
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	p.fail(name, err)
	return &n
}

func (p *parser) signed(name string) *int64 {
	text := p.text(name)
	if text == "" {
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	p.fail(name, err)
	return &n
}

func (p *parser) size(name string) *int64 {
	text := p.text(name)
	if text == "" {
		return nil
	}
	n, err := parseSize(text)
	p.fail(name, err)
	return &n
}

func (p *parser) fail(name string, err error) {
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("invalid value for %s: %w", name, err)
	}
}

// parseSize understands bytes with a unit of powers of 1024: 512, 64k, 1.5GiB, 2gb; -1 is no limit.
func parseSize(text string) (int64, error) {
	if text == "-1" {
		return -1, nil
	}
	number := strings.TrimRight(text, "bBiIkKmMgGtTpP ")
	unit := strings.ToLower(strings.TrimSpace(text[len(number):]))
	unit = strings.TrimSuffix(strings.TrimSuffix(unit, "b"), "i")
	power := strings.Index("kmgtp", unit)
	if unit == "" {
		power = -1
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n < 0 || len(unit) > 1 || unit != "" && power < 0 {
		return 0, fmt.Errorf("invalid size: '%s'", text)
	}
	if n *= math.Pow(1024, float64(power+1)); n >= math.MaxInt64 {
		return 0, fmt.Errorf("size is too large: '%s'", text)
	}
	return int64(n), nil
}
