package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/livemigrate/migrate/internal/sys/pidfd"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// Kill ends every process of the cgroup and of those below, frozen or not, and returns when none is left.
//
// On cgroup v2 the kernel does it at once and frozen tasks die (cgroup.kill, Linux 5.14). On v1, and before 5.14,
// each pid is killed; there a frozen task keeps its SIGKILL pending, so all are killed first and thawed then: none
// runs an instruction of its own in between. What was forked meanwhile is met by the next round.
//
// Who traces others of them is killed after those: a tracer that ends lets go of what it holds, which would run until its turn
// comes. Such is a CRIU whose restore is not to be.
func (g *Group) Kill(ctx context.Context) error {
	for round := 0; ; round++ {
		pids, err := g.Pids()
		if err != nil {
			return fmt.Errorf("list cgroup processes: %w", err)
		}
		if len(pids) == 0 {
			return nil
		}
		if round == 0 {
			if err := g.killHeld(pids); err != nil {
				return err
			}
		}
		if err := g.kill(ctx, pids); err != nil {
			return err
		}
		if err := pause(ctx, round); err != nil {
			return fmt.Errorf("kill %d processes of the cgroup: %w", len(pids), err)
		}
	}
}

func (g *Group) kill(ctx context.Context, pids []int) error {
	if V2() {
		err := cgroups.WriteFile(g.manager.Path(""), "cgroup.kill", "1")
		// A threaded cgroup, which is what one below a cgroup with processes of its own becomes, can't be killed as a whole.
		if err == nil || !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	if _, err := g.signal(pids, unix.SIGKILL); err != nil {
		return err
	}
	return g.Thaw(ctx)
}

// killHeld kills all but the tracers, where there are such among them. The rounds that follow, which may have to be faster than
// forks, do not ask again.
func (g *Group) killHeld(pids []int) error {
	held := untracing(pids)
	if len(held) == len(pids) {
		return nil
	}
	_, err := g.signal(held, unix.SIGKILL)
	return err
}

// untracing are those that trace none of the others.
func untracing(pids []int) []int {
	tracers := make(map[int]bool)
	for _, pid := range pids {
		if tracer, err := process.Tracer(pid); err == nil && tracer != 0 {
			tracers[tracer] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return tracers[pid] })
}

// Signal sends a signal to every process once, and returns to how many.
func (g *Group) Signal(sig unix.Signal) (int, error) {
	pids, err := g.Pids()
	if err != nil {
		return 0, fmt.Errorf("list cgroup processes: %w", err)
	}
	return g.signal(pids, sig)
}

func (g *Group) signal(pids []int, sig unix.Signal) (sent int, err error) {
	// A pid that was read may belong to a stranger by the time it is used. A pidfd pins whoever has the number now;
	// if the number is still listed after that, it is one of ours.
	pinned := make(map[int]*os.File, len(pids))
	defer func() {
		for _, p := range pinned {
			p.Close()
		}
	}()
	for _, pid := range pids {
		if p, err := pidfd.Open(pid); err == nil {
			pinned[pid] = p
		} else if !errors.Is(err, os.ErrProcessDone) {
			return 0, err
		}
	}
	ours, err := g.Pids()
	if err != nil {
		return 0, fmt.Errorf("list cgroup processes: %w", err)
	}
	var errs []error
	for pid, p := range pinned {
		if !slices.Contains(ours, pid) {
			continue
		}
		switch err := pidfd.Signal(p, sig); {
		case err == nil:
			sent++
		case !errors.Is(err, os.ErrProcessDone):
			errs = append(errs, err)
		}
	}
	return sent, errors.Join(errs...)
}
