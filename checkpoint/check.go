package checkpoint

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/runtime"
)

// Check says why a container could be dumped and then not be restored. It needs no CRIU and changes nothing; Begin asks it
// before anything stops.
func Check(c *runtime.Container, o *Options) error {
	plan := c.Plan()
	if n := len(plan.Spec.Linux.NetDevices); n > 0 && plan.Private(specs.NetworkNamespace) && !o.EmptyNetwork {
		// CRIU saves its name and not the device, and finds at restore that the other end is missing.
		return fmt.Errorf("%w: linux.netDevices moves %d of the host's devices in, which a restore cannot give it "+
			"(checkpoint and restore with --empty-ns network leave them out)", ErrUnrestorable, n)
	}
	if _, err := c.ExternalMounts(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnrestorable, err)
	}
	return nil
}
