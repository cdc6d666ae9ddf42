package checkpoint

import (
	"context"
	"errors"
	"time"

	"github.com/livemigrate/migrate/internal/sys/process"
)

// Who seizes a task that a signal has stopped (SIGSTOP, Ctrl-Z) waits in the kernel until it has gone from that stop to the tracer's.
// cgroup v1's freezer holds it where it is, and CRIU waits for ever, deaf even to its own alarm. So the process leaves the freezer
// once CRIU waits for it, and comes back as soon as all of its threads stand still for CRIU. On the way from one stop to the other
// it executes nothing. cgroup v2's freezer knows tracers.

// How often to look, and how long a process may stay out of the freezer.
const (
	betweenSeizes = time.Millisecond
	longestLoose  = 2 * time.Second
)

// loosenStopped helps CRIU to seize what is stopped, from the moment that the cgroup is frozen until d.seized.
func (d *dump) loosenStopped(ctx context.Context, pids []int) {
	if !d.container.FreezesStopped() {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	d.loosening = func() error {
		cancel()
		return <-done
	}
	go func() { done <- d.loosenEach(ctx, pids) }()
}

// seized ends that: CRIU has all tasks, or has given up.
func (d *dump) seized() error {
	if d.loosening == nil {
		return nil
	}
	end := d.loosening
	d.loosening = nil
	return end()
}

func (d *dump) loosenEach(ctx context.Context, pids []int) error {
	stopped := make(map[int]bool)
	for _, pid := range pids {
		if process.StoppedBySignal(pid) {
			stopped[pid] = true
		}
	}
	var errs error
	for len(stopped) > 0 && sleep(ctx, betweenSeizes) {
		for pid := range stopped {
			if some, _ := process.Seized(pid); some {
				delete(stopped, pid)
				errs = errors.Join(errs, d.loosen(ctx, pid))
			}
		}
	}
	return errs
}

func (d *dump) loosen(ctx context.Context, pid int) error {
	tighten, err := d.container.Loosen(pid)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, longestLoose)
	defer cancel()
	for all := false; !all && sleep(ctx, betweenSeizes); {
		_, all = process.Seized(pid)
	}
	return tighten()
}

// sleep is cut short by the end of ctx; false then.
func sleep(ctx context.Context, long time.Duration) bool {
	timer := time.NewTimer(long)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
