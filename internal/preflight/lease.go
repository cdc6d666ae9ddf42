package preflight

import (
	"bytes"
	"os"
	"strconv"
)

// judgeLeases finds the leases (fcntl's F_SETLEASE) that reading a file breaks. Whoever copies the file then waits for its holder,
// by default for 45 s, and would do so again while the container stands still.
func (c *container) judgeLeases() Findings {
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		return nil
	}
	holders := leaseHolders(text)
	var f Findings
	for _, p := range c.processes {
		if holders[p.pid] {
			f = append(f, p.finding(Blocker, FileLease, "let it give the lease back, or stop it", "has a write lease on a file, which would have to be broken to copy the file"))
		}
	}
	return f
}

// leaseHolders are the processes with write leases, by the lines of /proc/locks:
//
//	1: LEASE  ACTIVE    WRITE 3568 fd:00:2531452 0 EOF
func leaseHolders(locks []byte) map[int]bool {
	holders := make(map[int]bool)
	for line := range bytes.Lines(locks) {
		fields := bytes.Fields(line)
		if len(fields) < 5 || string(fields[1]) != "LEASE" || string(fields[3]) != "WRITE" {
			continue
		}
		if pid, err := strconv.Atoi(string(fields[4])); err == nil {
			holders[pid] = true
		}
	}
	return holders
}
