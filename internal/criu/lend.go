package criu

import (
	"fmt"
	"os"

	"github.com/livemigrate/migrate/internal/sys/limits"
	"github.com/livemigrate/migrate/internal/sys/process"
)

// lendLimits has the child load a library of ours before its own, if it needs that: a CRIU that may not read the limits of
// another user's process gives up. Where there is none, or CRIU is linked statically, it does.
func (c *Client) lendLimits() {
	own, err := process.Effective()
	if err == nil && own.Has(process.SysResource) {
		return
	}
	if c.lent, err = limits.Library(); err != nil {
		c.log.Warn("criu cannot read the limits of other users' processes", "cause", err)
		return
	}
	preload := fmt.Sprintf("LD_PRELOAD=/proc/%d/fd/%d", os.Getpid(), c.lent.Fd())
	if more := os.Getenv("LD_PRELOAD"); more != "" {
		preload += ":" + more
	}
	c.cmd.Env = append(os.Environ(), preload)
}
