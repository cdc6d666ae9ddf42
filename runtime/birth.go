package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// birthFile is a second record of a container, written before its state.json and left alone when that changes. It is what
// delete --force goes by when state.json is cut, empty or garbage: without it nobody would know the cgroups to kill.
const birthFile = "birth.json"

// birth is a state without what only a running container needs. It keeps what Remove has to find: the cgroups, init, the
// resctrl group and the link, and what poststop hooks are told.
func birth(s *State) *State {
	spec := &specs.Spec{
		Annotations: s.Plan.Spec.Annotations,
		Linux:       &specs.Linux{CgroupsPath: s.Plan.Spec.Linux.CgroupsPath, Namespaces: s.Plan.Spec.Linux.Namespaces},
	}
	if hooks := s.Plan.Spec.Hooks; hooks != nil && len(hooks.Poststop) > 0 {
		spec.Hooks = &specs.Hooks{Poststop: hooks.Poststop}
	}
	return &State{
		Version: s.Version, ID: s.ID, InitProcessPid: s.InitProcessPid, InitProcessStartTime: s.InitProcessStartTime, Created: s.Created,
		Plan: &Plan{Spec: spec, Bundle: s.Plan.Bundle}, RootlessCgroups: s.RootlessCgroups, SystemdCgroup: s.SystemdCgroup,
		CgroupPaths: s.CgroupPaths, Network: s.Network, OwnsNetwork: s.OwnsNetwork,
		IntelRdtPath: s.IntelRdtPath, IntelRdtMonPath: s.IntelRdtMonPath, IntelRdtOwned: s.IntelRdtOwned,
	}
}

// firstState writes both records of a container whose init is new. The birth is not synced: after a power cut there is
// nothing left to kill.
func firstState(dir string, s *State) error {
	if err := replaceFile(dir, birthFile, birth(s), false); err != nil {
		return fmt.Errorf("save birth: %w", err)
	}
	return saveState(dir, s)
}

// Remove deletes a container that Load cannot load: one whose creation was cut short, or whose state is corrupt. What it
// was born with names its processes, cgroups, link and poststop hooks. Without that record they are looked for in the
// cgroup that a container of this id gets when its spec names none, and a warning says so. ErrRunning without force when
// its init lives, or anything in that cgroup. Nothing there is no error.
func (r *Runtime) Remove(ctx context.Context, id string, force bool) error {
	if err := validateID(id); err != nil {
		return err
	}
	dir := r.dir(id)
	release, err := lockState(dir)
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer release()
	state, err := readState(filepath.Join(dir, birthFile), id)
	if errors.Is(err, ErrNotExist) {
		if _, err := os.Lstat(filepath.Join(dir, stateFile)); errors.Is(err, fs.ErrNotExist) { // it never had a process
			return removeStateDir(dir)
		}
		err = errors.New("state.json is corrupt, and there is no birth.json")
	}
	if err != nil {
		return r.removeUnknown(ctx, dir, id, force, err)
	}
	c, err := r.open(dir, id, state)
	switch {
	case err != nil:
		return r.removeUnknown(ctx, dir, id, force, err)
	case !force && c.alive():
		return &NotStoppedError{ID: id, Status: Running}
	}
	return c.destroy(ctx)
}

// removeUnknown is Remove of a container of which no record can be read, for the reason given. Only where its cgroup would
// be by default is known, and only of that the processes can be found.
func (r *Runtime) removeUnknown(ctx context.Context, dir, id string, force bool, reason error) error {
	c, err := r.open(dir, id, &State{
		Version: stateVersion, ID: id, Plan: &Plan{Spec: &specs.Spec{Linux: &specs.Linux{}}},
		SystemdCgroup: r.systemd, RootlessCgroups: r.rootlessCgroups,
	})
	if err != nil {
		r.log.Warn("the state directory is removed; processes and cgroups of the container, if any, have to be found by hand",
			"container", id, "error", errors.Join(reason, err))
		return removeStateDir(dir)
	}
	pids, err := c.group.Pids()
	switch {
	case err != nil:
		return fmt.Errorf("unable to get all container pids: %w", err)
	case !force && len(pids) > 0:
		return &NotStoppedError{ID: id, Status: Running}
	}
	r.log.Warn("no record of the container can be read: its default cgroup and its state directory are removed; what it had elsewhere, if anything, has to be found by hand",
		"container", id, "killed", len(pids), "error", reason)
	return c.destroy(ctx)
}
