// Package cgroup is a container's cgroup: made from its spec, entered, limited, frozen, killed, measured and removed.
// The managers of opencontainers/cgroups do the v1, v2 and systemd work; this package adds what they leave open: the
// translation from the spec, a freezer that can be waited for and cancelled, and a kill that works on a frozen cgroup.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // without it the managers refuse device rules
	"github.com/opencontainers/cgroups/fs2"
	"github.com/opencontainers/cgroups/manager"
)

// ErrRootless: the cgroup could not be made or entered, and rootless mode allows for that.
var ErrRootless = cgroups.ErrRootless

// Group is one container's cgroup, in every hierarchy. Safe for concurrent use.
type Group struct {
	manager  cgroups.Manager
	rootless bool
	owner    *int // whom Apply hands the cgroup to
}

// New is a cgroup that may not exist yet; Open one whose paths are known.
func New(c *cgroups.Cgroup) (*Group, error) { return Open(c, nil) }

// Open takes the paths that Paths returned when the cgroup was made.
func Open(c *cgroups.Cgroup, paths map[string]string) (*Group, error) {
	m, err := manager.NewWithPaths(c, maps.Clone(paths)) // the manager changes the map it is given
	if err != nil {
		return nil, err
	}
	g := &Group{manager: m, rootless: c.Rootless}
	if V2() && !c.Systemd { // the systemd driver does it itself
		g.owner = c.OwnerUID
	}
	return g, nil
}

// V2 tells whether the host has the unified hierarchy alone.
func V2() bool { return cgroups.IsCgroup2UnifiedMode() }

// CheckFree refuses a cgroup that is somebody else's: with processes in it, or frozen.
func (g *Group) CheckFree() error {
	if g.manager.Exists() {
		pids, err := g.manager.GetAllPids()
		if err != nil && !gone(err) {
			return fmt.Errorf("unable to get cgroup PIDs: %w", err)
		}
		if len(pids) > 0 {
			return fmt.Errorf("container's cgroup is not empty: %d process(es) found", len(pids))
		}
	}
	frozen, err := g.Frozen()
	if err != nil {
		return fmt.Errorf("unable to get cgroup freezer state: %w", err)
	}
	if frozen {
		return errors.New("container's cgroup unexpectedly frozen")
	}
	return nil
}

// Apply makes the cgroup and moves a process into it; pid -1 only makes it. Where the container is to manage its cgroup,
// it becomes the container's.
func (g *Group) Apply(pid int) error {
	if err := g.manager.Apply(pid); err != nil {
		return err
	}
	return g.delegate()
}

// Set writes limits. Those that are not set in r stay as they are.
func (g *Group) Set(r *cgroups.Resources) error { return g.manager.Set(r) }

// Exists tells whether the cgroup is there.
func (g *Group) Exists() bool { return g.manager.Exists() }

// Stats measures.
func (g *Group) Stats() (*cgroups.Stats, error) { return g.manager.GetStats() }

// OOMKills counts the processes that the kernel killed for lack of memory.
func (g *Group) OOMKills() (uint64, error) { return g.manager.OOMKillCount() }

// Destroy removes the cgroup and those below it. No process may be left in it.
func (g *Group) Destroy() error { return g.manager.Destroy() }

// Paths are the directories by controller; on cgroup v2 the only key is "".
func (g *Group) Paths() map[string]string { return maps.Clone(g.manager.GetPaths()) }

// Pids lists every process of the cgroup and those below. A cgroup that is gone has none.
func (g *Group) Pids() ([]int, error) {
	pids, err := g.manager.GetAllPids()
	if gone(err) {
		return nil, nil
	}
	return pids, err
}

// Join moves a process that joins a running container into its cgroup, or into the cgroups below it that sub names by
// controller ("" for all of them). init's own cgroup is the fallback on cgroup v2, where a container may have moved
// its processes away from a cgroup that then takes none; not when a cgroup was named.
func (g *Group) Join(pid, init int, sub map[string]string) error {
	err := g.join(pid, init, sub)
	if err != nil && g.rootless && !errors.Is(err, errBadSub) {
		return nil
	}
	return err
}

var errBadSub = errors.New("bad sub cgroup path")

func (g *Group) join(pid, init int, sub map[string]string) error {
	if err := g.checkSub(sub); err != nil {
		return err
	}
	all, single := sub[""]
	if len(sub) == 0 || single {
		err := g.manager.AddPid(all, pid)
		if err == nil || all != "" || !V2() {
			return addError(pid, err)
		}
		own, ok := initCgroup(init)
		if !ok {
			return addError(pid, err)
		}
		return addError(pid, cgroups.WriteCgroupProc(own, pid))
	}
	for controller, dir := range g.Paths() {
		if below, ok := sub[controller]; ok {
			dir = path.Join(dir, below)
		}
		if err := cgroups.WriteCgroupProc(dir, pid); err != nil {
			return addError(pid, err)
		}
	}
	return nil
}

// checkSub refuses to leave the container's cgroup.
func (g *Group) checkSub(sub map[string]string) error {
	paths := g.Paths()
	for controller, below := range sub {
		base, ok := paths[controller]
		if controller == "" && !ok { // v1: any controller's will do, the same path is used below each
			for _, base = range paths {
				break
			}
			ok = base != ""
		}
		if !ok {
			return fmt.Errorf("%w: unknown controller %s", errBadSub, controller)
		}
		if dir := path.Join(base, below); dir != base && !strings.HasPrefix(dir, base+"/") {
			return fmt.Errorf("%w: %s", errBadSub, below)
		}
	}
	return nil
}

func initCgroup(pid int) (string, bool) {
	if pid <= 0 {
		return "", false
	}
	paths, err := cgroups.ParseCgroupFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", false
	}
	dir, ok := paths[""]
	return fs2.UnifiedMountpoint + dir, ok
}

func addError(pid int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("error adding pid %d to cgroups: %w", pid, err)
}

// gone tells that a cgroup was removed while it was looked at.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV)
}
