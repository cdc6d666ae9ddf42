package keeper

import (
	"os"
	goruntime "runtime"
	"strings"
)

// hostname names this host in messages.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown host"
	}
	return name
}

func kernelRelease() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(release))
}

func machine() string { return goruntime.GOARCH }
