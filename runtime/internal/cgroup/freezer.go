package cgroup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs2"
)

// freezeLimit is how long a freeze may take when the context sets no limit. What takes longer hangs in the kernel
// (a task in uninterruptible sleep, e.g. on a dead NFS server) and would never end.
const freezeLimit = 10 * time.Second

// FreezerDir is the directory with the freezer's files, or "" without one.
func (g *Group) FreezerDir() string {
	if V2() {
		return g.manager.Path("")
	}
	return g.manager.Path("freezer")
}

// Frozen tells whether the cgroup itself is frozen; one that is frozen because of its parent is not. Without a
// freezer nothing is ever frozen.
func (g *Group) Frozen() (bool, error) {
	dir := g.FreezerDir()
	if dir == "" {
		return false, nil
	}
	// v1 has three states; FREEZING with self_freezing 1 was asked for and is as good as frozen to whoever asks what
	// the container is: its tasks stop one by one.
	file, frozen := "freezer.self_freezing", "1"
	if V2() {
		file = "cgroup.freeze"
	}
	text, err := cgroups.ReadFile(dir, file)
	if gone(err) {
		return false, nil
	}
	return strings.TrimSpace(text) == frozen, err
}

// Freeze stops every task of the cgroup and of those below, and returns once all have stopped; a ptrace-stopped task
// counts as stopped. When it fails, or ctx ends, the cgroup is thawed: half a freeze helps nobody. Idempotent.
func (g *Group) Freeze(ctx context.Context) error {
	dir := g.FreezerDir()
	if dir == "" {
		return errors.New("cannot toggle freezer: cgroups not configured for container")
	}
	if _, ok := ctx.Deadline(); !ok {
		limited, cancel := context.WithTimeout(ctx, freezeLimit)
		defer cancel()
		ctx = limited
	}
	var err error
	if V2() {
		err = freezeV2(ctx, dir)
	} else {
		err = freezeV1(ctx, dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("freeze cgroup %s: %w", dir, err), g.Thaw(context.WithoutCancel(ctx)))
	}
	return nil
}

// Expel takes a process that a freeze must not stop out of the cgroup, to where the caller is. Where it limits nothing
// but the freezer (cgroup v1) the other hierarchies are left as they are.
func (g *Group) Expel(pid int) error {
	if g.FreezerDir() == "" {
		return nil
	}
	own, err := ownFreezerDir()
	if err != nil {
		return fmt.Errorf("find own cgroup: %w", err)
	}
	if err := cgroups.WriteCgroupProc(own, pid); err != nil {
		return fmt.Errorf("take process %d out of the cgroup: %w", pid, err)
	}
	return nil
}

// Loosen takes a process out of the freezer, and nothing else, until tighten is called: a task of it that has something to do before
// it stops elsewhere can do that. Needed, and possible, with cgroup v1 alone; see V2.
func (g *Group) Loosen(pid int) (tighten func() error, err error) {
	dir := g.FreezerDir()
	if err := g.Expel(pid); err != nil {
		return nil, err
	}
	return func() error {
		if err := cgroups.WriteCgroupProc(dir, pid); err != nil && !gone(err) {
			return fmt.Errorf("take process %d back into the cgroup: %w", pid, err)
		}
		return nil
	}, nil
}

func ownFreezerDir() (string, error) {
	if !V2() {
		return cgroups.GetOwnCgroupPath("freezer")
	}
	own, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	return filepath.Join(fs2.UnifiedMountpoint, own[""]), err
}

// freezeV1 repeats the request: the kernel looks at the tasks only when it is written or read, and one that is just
// being forked can escape the first look. A thaw in between helps when tasks keep appearing (known from runc).
func freezeV1(ctx context.Context, dir string) error {
	for round := 0; ; round++ {
		if err := cgroups.WriteFile(dir, "freezer.state", string(cgroups.Frozen)); err != nil {
			return err
		}
		state, err := cgroups.ReadFile(dir, "freezer.state")
		if err != nil {
			return err
		}
		if strings.TrimSpace(state) == string(cgroups.Frozen) {
			return nil
		}
		if round%200 == 199 {
			if err := cgroups.WriteFile(dir, "freezer.state", string(cgroups.Thawed)); err != nil {
				return err
			}
		}
		if err := pause(ctx, round); err != nil {
			return err
		}
	}
}

func freezeV2(ctx context.Context, dir string) error {
	if err := cgroups.WriteFile(dir, "cgroup.freeze", "1"); err != nil {
		return err
	}
	for round := 0; ; round++ {
		events, err := cgroups.ReadFile(dir, "cgroup.events")
		if err != nil {
			return err
		}
		if strings.Contains(events, "frozen 1") {
			return nil
		}
		if err := pause(ctx, round); err != nil {
			return err
		}
	}
}

// Thaw lets the tasks run. Idempotent; a cgroup that is gone is no error.
func (g *Group) Thaw(_ context.Context) error {
	dir := g.FreezerDir()
	if dir == "" {
		return nil
	}
	file, thawed := "freezer.state", string(cgroups.Thawed)
	if V2() {
		file, thawed = "cgroup.freeze", "0"
	}
	if err := cgroups.WriteFile(dir, file, thawed); err != nil && !gone(err) {
		return fmt.Errorf("thaw cgroup %s: %w", filepath.Clean(dir), err)
	}
	return nil
}

// pause waits a little, and longer the longer it goes on: most waits end within the first fractions of a millisecond,
// which count while a container is away.
func pause(ctx context.Context, round int) error {
	wait := 20 * time.Microsecond << min(round/10, 8)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
