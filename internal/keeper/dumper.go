package keeper

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/criu"
)

// dumpLimit bounds the wait for a CRIU whose keeper is gone: it goes on with its dump until it has something to tell.
const dumpLimit = time.Minute

// awaitDumper returns when no CRIU is at work any more for a move whose keeper is gone. It would find the container as the
// keeper froze it, and freeze it again when it undoes its dump; and it may not have stopped a single task yet.
func (p Places) awaitDumper(ctx context.Context, move string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, dumpLimit, fmt.Errorf("its criu has not ended within %v", dumpLimit))
	defer cancel()
	for {
		pids := p.criuAt(move)
		if len(pids) == 0 {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for criu, process %d: %w", pids[0], context.Cause(ctx))
		}
	}
}

// criuAt are the CRIU that has a move's images open, and its helpers.
func (p Places) criuAt(move string) []int {
	spool := p.spoolPath(move)
	var here syscall.Stat_t
	if err := syscall.Stat(spool, &here); err != nil {
		return nil // no images
	}
	var pids []int
	processes, _ := filepath.Glob("/proc/[0-9]*") // the pattern is a good one
	for _, process := range processes {
		pid, err := strconv.Atoi(filepath.Base(process))
		if err != nil || !criu.Serving(pid) {
			continue
		}
		files, _ := filepath.Glob(filepath.Join(process, "fd", "*"))
		if slices.ContainsFunc(files, func(file string) bool {
			path, _ := os.Readlink(file)
			if path != spool && !strings.HasPrefix(path, spool+"/") {
				return false
			}
			var there syscall.Stat_t // in another mount namespace the path may be another's
			return syscall.Stat(file, &there) == nil && there.Dev == here.Dev
		}) {
			pids = append(pids, pid)
		}
	}
	return pids
}
