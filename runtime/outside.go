package runtime

import (
	"github.com/livemigrate/migrate/runtime/internal/bootstrap"
	"github.com/livemigrate/migrate/runtime/internal/cgroup"
	"github.com/livemigrate/migrate/runtime/internal/rootfs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// InitName is the name of a container's init, in /proc/PID/comm, from its creation until it executes its program.
const InitName = bootstrap.InitName

// NamespacePath is the path of a namespace that the container joins, "" for one of its own or the host's.
func (p *Plan) NamespacePath(kind specs.LinuxNamespaceType) string {
	path, _ := p.namespace(kind)
	return path
}

// ExternalMounts are the container's mounts whose content no image set carries, for a dump, which names their
// destinations. A restore gives sources, too: those of [Prepared.ExternalMounts].
func (c *Container) ExternalMounts() ([]ExternalMount, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return rootfs.ExternalMounts(c.mountedSpec(), c.state.Plan.Bundle, rootfs.Here{})
}

// CgroupPaths are the directories, by controller, of the cgroups that a container of this id and spec gets here; on cgroup
// v2 the only key is "". They need not exist, and nothing is made.
func (r *Runtime) CgroupPaths(id string, spec *specs.Spec) (map[string]string, error) {
	config, err := (&Plan{Spec: spec}).cgroupConfig(id, r.systemd, r.rootlessCgroups)
	if err != nil {
		return nil, err
	}
	group, err := cgroup.New(config)
	if err != nil {
		return nil, err
	}
	return group.Paths(), nil
}
