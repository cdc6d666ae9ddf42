package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/livemigrate/migrate/internal/sys/fs"
	"github.com/livemigrate/migrate/runtime"
)

// settleTime is longer than a loaded machine takes from start to execve(2), unless hooks of the container come between.
const settleTime = time.Second

// errUnsettled is better than what CRIU says of an executable that it can't find.
var errUnsettled = errors.New("its program does not run yet: startContainer hooks may still be busy, try again when start has returned")

// Settle waits until init has become its program, a second at most. Start returns a moment earlier, when init is told to go on,
// and CRIU cannot dump the runtime's own executable, which is on no mount of the container. Begin does it by itself; whoever
// looks at a container's processes to tell whether they can be saved should, too.
func Settle(ctx context.Context, pid int) error {
	for end := time.Now().Add(settleTime); ; {
		if !isRuntime(pid) {
			return nil
		}
		if time.Now().After(end) {
			return errUnsettled
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// isRuntime tells whether init is the runtime still: by its name, which any program may give itself, and by its executable,
// which was opened on a mount of its own, sealed. That a process is gone is found by the dump.
func isRuntime(pid int) bool {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || strings.TrimSpace(string(name)) != runtime.InitName {
		return false
	}
	exe, err := os.Open(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false
	}
	defer exe.Close()
	id, err := fs.MountOf(int(exe.Fd()))
	if err != nil {
		return false
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return false
	}
	for line := range bytes.Lines(mounts) {
		if bytes.HasPrefix(line, fmt.Appendf(nil, "%d ", id)) {
			return false
		}
	}
	return true
}
