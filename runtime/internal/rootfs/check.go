package rootfs

import (
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// CheckMounts says which mount of the spec could not be made on any host.
func CheckMounts(spec *specs.Spec, bundle string) error {
	for i := range spec.Mounts {
		m, err := parseMount(&spec.Mounts[i], bundle)
		if err != nil {
			return err
		}
		switch {
		case m.bind && len(m.options) > 0:
			// The kernel ignores them on a bind mount: better said than done by halves.
			err = errors.New("bind mounts cannot have any filesystem-specific options applied")
		case m.idmap && (len(spec.Mounts[i].UIDMappings) == 0) != (len(spec.Mounts[i].GIDMappings) == 0):
			err = errors.New("id-mapped mounts must have both uid and gid mappings specified")
		case m.idmap && len(spec.Mounts[i].UIDMappings) == 0 && !HasNamespace(spec, specs.UserNamespace):
			err = errors.New("id-mapped mounts must have both uid and gid mappings specified")
		}
		if err != nil {
			return fmt.Errorf("invalid mount on %q: %w", m.dest, err)
		}
	}
	return nil
}
