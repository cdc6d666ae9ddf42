package runtime

import "context"

// NotifyOOM signals each time the kernel kills one of the container's processes for lack of memory. The channel is
// closed when the container's cgroup is gone, or ctx ends.
func (c *Container) NotifyOOM(ctx context.Context) (<-chan struct{}, error) {
	if c.rootlessCgroups() {
		c.log.Warn("getting OOM notifications may fail if you don't have the full access to cgroups")
	}
	return c.group.NotifyOOM(ctx)
}

// NotifyMemoryPressure signals when the container reaches a level of memory pressure: "low", "medium" or "critical". The
// channel is closed as that of NotifyOOM. cgroup v1 only.
func (c *Container) NotifyMemoryPressure(ctx context.Context, level string) (<-chan struct{}, error) {
	return c.group.NotifyMemoryPressure(ctx, level)
}
