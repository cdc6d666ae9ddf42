package criu

import (
	"debug/elf"
	"fmt"
	"os"
	"slices"

	"github.com/livemigrate/migrate/internal/sys/limits"
	"github.com/livemigrate/migrate/internal/sys/process"
)

// lendLimits has the child load a library of ours before its own, if it needs that: a CRIU that may not read the limits of
// another user's process gives up. Where there is none, or CRIU is linked statically, it does. The caller closes the library once
// the child is started.
func (c *Client) lendLimits() *os.File {
	own, err := process.Effective()
	if err != nil {
		own = 0 // it is lent in vain at worst
	}
	return c.lend(own)
}

// lend hands the library down as the child's last descriptor, and names it as that. Named as one of this process's it could come to
// mean another file: that of whoever is given this process's number after it. The programs that CRIU runs inherit the name
// without the descriptor: their loader says so, in CRIU's log, and goes on.
func (c *Client) lend(own process.Capabilities) *os.File {
	if own.Has(process.SysResource) {
		return nil
	}
	library, err := limits.Library()
	if err != nil {
		c.log.Warn("criu cannot read the limits of other users' processes", "cause", err)
		return nil
	}
	c.cmd.ExtraFiles = append(c.cmd.ExtraFiles, library)
	preload := fmt.Sprintf("LD_PRELOAD=/proc/self/fd/%d", firstExtra+len(c.cmd.ExtraFiles)-1)
	if more := os.Getenv("LD_PRELOAD"); more != "" {
		preload += ":" + more
	}
	c.cmd.Env = append(os.Environ(), preload)
	return library
}

// Borrows tells whether the CRIU at a path can be lent something: where there is something to lend, and it is not linked statically.
// Of a program that cannot be read, or is a script, nothing is known, and the answer is yes.
func Borrows(path string) bool {
	if !limits.Supported {
		return false
	}
	program, err := elf.Open(path)
	if err != nil {
		return true
	}
	defer program.Close()
	return slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// firstExtra is the number that the first of exec.Cmd's ExtraFiles has in the child.
const firstExtra = 3
