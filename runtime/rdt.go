package runtime

import (
	"context"
	"errors"
	"fmt"

	"github.com/livemigrate/migrate/runtime/internal/rdt"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// rdtGroup is the container's resctrl group in the filesystem at root, nil when it has none.
func (c *Container) rdtGroup(root string) *rdt.Group {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.IntelRdtPath == "" {
		return nil
	}
	place := rdt.Place{Path: c.state.IntelRdtPath, Mon: c.state.IntelRdtMonPath, Owned: c.state.IntelRdtOwned}
	return rdt.Open(root, place, c.state.Plan.Spec.Linux.IntelRdt)
}

// makeRdtGroup makes the resctrl group that the spec asks for.
func (c *creation) makeRdtGroup() error {
	wanted := c.state.Plan.Spec.Linux.IntelRdt
	if wanted == nil || c.state.IntelRdtPath != "" {
		return nil
	}
	group := rdt.New(rdt.Root(), c.id, wanted)
	if err := group.Make(); err != nil {
		return err
	}
	c.undo.add("remove resctrl group", func(context.Context) error { return group.Remove() })
	place := group.Place()
	c.state.IntelRdtPath, c.state.IntelRdtMonPath, c.state.IntelRdtOwned = place.Path, place.Mon, place.Owned
	return nil
}

// joinRdtGroup moves a process of one thread into the container's resctrl group. Without one there is nothing to do.
func (c *Container) joinRdtGroup(pid int) error {
	group := c.rdtGroup(rdt.Root())
	if group == nil || pid < 0 {
		return nil
	}
	return group.Add(pid)
}

// joinAllRdtGroup moves every thread of the container, none of which may run, into its resctrl group: CRIU makes them
// in its own order, and not all of them below a process that had joined.
func (c *Container) joinAllRdtGroup() error {
	group := c.rdtGroup(rdt.Root())
	if group == nil {
		return nil
	}
	pids, err := c.Processes()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := group.AddProcess(pid); err != nil {
			return err
		}
	}
	return nil
}

// checkShares says why the shares of the container's resctrl group cannot be changed, in runc's words. nil is fine.
func (c *Container) checkShares(root string, shares *specs.LinuxIntelRdt) error {
	switch {
	case shares == nil:
		return nil
	case shares.L3CacheSchema != "" && !rdt.HasCAT(root):
		return errors.New("Intel RDT/CAT: l3 cache schema is not enabled") //nolint:staticcheck // ST1005: runc's text
	case shares.MemBwSchema != "" && !rdt.HasMBA(root):
		return errors.New("Intel RDT/MBA: memory bandwidth schema is not enabled") //nolint:staticcheck // ST1005: runc's text
	case c.rdtGroup(root) == nil:
		return errors.New("updating a non-existent Intel RDT configuration is not supported")
	}
	return rdt.Check(shares, root)
}

// setShares changes the shares; back undoes it, also after a failure. With nil there is nothing to do.
func (c *Container) setShares(root string, shares *specs.LinuxIntelRdt) (back func() error, err error) {
	group := c.rdtGroup(root)
	if shares == nil || group == nil {
		return func() error { return nil }, nil
	}
	before, err := group.Shares()
	if err != nil {
		return func() error { return nil }, err
	}
	back = func() error {
		if err := group.SetBack(before); err != nil {
			return fmt.Errorf("set shares back: %w", err)
		}
		return nil
	}
	return back, group.Set(shares)
}

// mergeShares makes new shares the spec's; an empty schema stays as it is.
func mergeShares(spec, shares *specs.LinuxIntelRdt) {
	if shares == nil || spec == nil {
		return
	}
	if shares.L3CacheSchema != "" {
		spec.L3CacheSchema = shares.L3CacheSchema
	}
	if shares.MemBwSchema != "" {
		spec.MemBwSchema = shares.MemBwSchema
	}
}

// IntelRdtStats are the shares and counters of a container's resctrl group.
type IntelRdtStats = rdt.Stats

// rdtStats measures the container's resctrl group; zero without one.
func (c *Container) rdtStats() (IntelRdtStats, error) {
	group := c.rdtGroup(rdt.Root())
	if group == nil {
		return IntelRdtStats{}, nil
	}
	stats, err := group.Stats()
	if err != nil {
		return IntelRdtStats{}, fmt.Errorf("unable to get container Intel RDT stats: %w", err)
	}
	return *stats, nil
}
