package criu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/livemigrate/migrate/internal/sys/process"
)

// Serving tells whether a process is a CRIU that was started for its RPC. One that waits for a request has "swrk" among its
// arguments, as every user of the RPC starts it; one that is at work has a title in their place (criu/cr-service.c).
func Serving(pid int) bool {
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false // it has just ended
	}
	for _, sign := range []string{"\x00swrk\x00", "criu: dump --rpc", "criu: pre-dump --rpc", "criu: restore --rpc"} {
		if bytes.Contains(args, []byte(sign)) {
			return true
		}
	}
	return false
}

// Holder is the CRIU that traces a process; 0 when none does.
func Holder(pid int) int {
	tracer, err := process.Tracer(pid)
	if err != nil || tracer == 0 || !Serving(tracer) {
		return 0
	}
	return tracer
}

// letGoLimit is how long a CRIU that has lost its caller has for letting go: some milliseconds for each task.
const letGoLimit = 10 * time.Second

// AwaitLetGo returns when no CRIU traces any of the processes, which are listed at each look, or with process.ErrTraced when it is
// not going to let go of them. Debuggers, which a container may have of its own, are not waited for.
func AwaitLetGo(ctx context.Context, list func() ([]int, error)) error {
	ctx, cancel := context.WithTimeout(ctx, letGoLimit)
	defer cancel()
	return process.AwaitUntraced(ctx, func() ([]int, error) {
		pids, err := list()
		return slices.DeleteFunc(pids, func(pid int) bool { return Holder(pid) == 0 }), err
	})
}
