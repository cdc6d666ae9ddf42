package scratch

import (
	"fmt"
	"strings"
)

// parseFree reads /proc/meminfo, whose numbers are KiB.
func parseFree(text string) (uint64, error) {
	var free uint64
	found := false
	for line := range strings.Lines(text) {
		var name string
		var kib uint64
		if n, _ := fmt.Sscanf(line, "%s %d kB", &name, &kib); n != 2 {
			continue
		}
		switch name {
		case "MemAvailable:":
			free, found = free+kib<<10, true
		case "SwapFree:":
			free += kib << 10
		}
	}
	if !found {
		return 0, errMeminfo
	}
	return free, nil
}
