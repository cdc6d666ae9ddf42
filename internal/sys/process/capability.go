package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Capabilities are a set of them; see capabilities(7).
type Capabilities uint64

// Those that somebody asks about.
const (
	SysPtrace   = unix.CAP_SYS_PTRACE
	SysAdmin    = unix.CAP_SYS_ADMIN
	SysResource = unix.CAP_SYS_RESOURCE
	NetAdmin    = unix.CAP_NET_ADMIN
)

// Has tells whether the set has one.
func (c Capabilities) Has(capability int) bool { return c>>capability&1 != 0 }

// Effective are those of this process.
func Effective() (Capabilities, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	_, rest, _ := bytes.Cut(text, []byte("\nCapEff:\t"))
	digits, _, _ := bytes.Cut(rest, []byte("\n"))
	set, err := strconv.ParseUint(string(digits), 16, 64)
	if err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	return Capabilities(set), nil
}
