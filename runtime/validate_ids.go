package runtime

import (
	"fmt"
	"math"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// checkMap follows user_namespaces(7): the kernel refuses such a map with no more than EINVAL.
func checkMap(name string, lines []specs.LinuxIDMapping) error {
	const mostLines = 340
	if len(lines) > mostLines {
		return fmt.Errorf("%s mapping has %d lines, more than the %d that the kernel takes", name, len(lines), mostLines)
	}
	overlap := func(a, aSize, b, bSize uint32) bool {
		return uint64(a) < uint64(b)+uint64(bSize) && uint64(b) < uint64(a)+uint64(aSize)
	}
	for i, l := range lines {
		text := fmt.Sprintf("%d:%d:%d", l.ContainerID, l.HostID, l.Size)
		switch {
		case l.Size == 0:
			return fmt.Errorf("invalid %s mapping %s: its size is 0", name, text)
		case max(uint64(l.ContainerID), uint64(l.HostID))+uint64(l.Size) > math.MaxUint32: // the last number is no id
			return fmt.Errorf("invalid %s mapping %s: it goes beyond the last id", name, text)
		}
		for _, other := range lines[:i] {
			if overlap(l.ContainerID, l.Size, other.ContainerID, other.Size) || overlap(l.HostID, l.Size, other.HostID, other.Size) {
				return fmt.Errorf("invalid %s mapping %s: it overlaps with %d:%d:%d", name, text, other.ContainerID, other.HostID, other.Size)
			}
		}
	}
	return nil
}
