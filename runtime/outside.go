package runtime

import (
	"github.com/livemigrate/migrate/runtime/internal/rootfs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// NamespacePath is the path of a namespace that the container joins, "" for one of its own or the host's.
func (p *Plan) NamespacePath(kind specs.LinuxNamespaceType) string {
	path, _ := p.namespace(kind)
	return path
}

// ExternalMounts are the container's mounts whose content no image set carries: a dump names their destinations, a
// restore gives their sources.
func (p *Plan) ExternalMounts() ([]ExternalMount, error) {
	return rootfs.ExternalMounts(p.Spec, p.Bundle, nil)
}
