package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/livemigrate/migrate/internal/sys/pidfd"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/runtime/internal/cgroup"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Container is one container, whatever it is doing. Safe for concurrent use; other processes may use it too. It holds no
// descriptors and needs no closing.
type Container struct {
	id    string
	dir   string
	group *cgroup.Group
	log   *slog.Logger

	mu    sync.Mutex // guards state
	state *State
}

// ID is the container's name under its root.
func (c *Container) ID() string { return c.id }

// StateDir is the directory that holds the container's state.
func (c *Container) StateDir() string { return c.dir }

// State is a copy of what is stored.
func (c *Container) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.clone()
}

// Plan is a copy of what the container was made from.
func (c *Container) Plan() *Plan {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Plan.clone()
}

// Spec is a copy of the container's spec; its resources are those of the last Set.
func (c *Container) Spec() *specs.Spec { return c.Plan().Spec }

// Bundle is the absolute path of the bundle.
func (c *Container) Bundle() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Plan.Bundle
}

// InitPid is the pid of the container's first process, 0 when it is not alive.
func (c *Container) InitPid() int {
	pid, start := c.init()
	if !process.Alive(pid, start) {
		return 0
	}
	return pid
}

func (c *Container) init() (pid int, start uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.InitProcessPid, c.state.InitProcessStartTime
}

func (c *Container) alive() bool { return process.Alive(c.init()) }

// OCIState is the state as the OCI specification has it, which hooks read.
func (c *Container) OCIState() (*specs.State, error) {
	status, err := c.Status()
	if err != nil {
		return nil, err
	}
	return c.ociState(specs.ContainerState(status.String())), nil
}

func (c *Container) ociState(status specs.ContainerState) *specs.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ociState(c.id, c.state.Plan, status)
	if status != specs.StateStopped {
		s.Pid = c.state.InitProcessPid
	}
	return s
}

func ociState(id string, p *Plan, status specs.ContainerState) *specs.State {
	return &specs.State{Version: specs.Version, ID: id, Status: status, Bundle: p.Bundle, Annotations: p.Spec.Annotations}
}

// UpdateState changes what is stored, in one step for everybody else who reads or changes it.
func (c *Container) UpdateState(change func(*State)) error {
	release, err := lockState(c.dir)
	if err != nil {
		return err
	}
	defer release()
	state, err := loadState(c.dir, c.id) // another process may have changed it since it was loaded
	if err != nil {
		return err
	}
	change(state)
	if err := saveState(c.dir, state); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = state
	return nil
}

// Processes are the pids of the container's processes, in the caller's pid namespace. Unless it is paused some may be
// gone already. A stopped container has none. A rootless one may have no cgroup, which is what lists them: an error.
func (c *Container) Processes() ([]int, error) {
	pids, err := c.group.Pids()
	if err == nil && len(pids) == 0 && c.rootlessCgroups() && c.alive() {
		err = errors.New("the container has no cgroup of its own (rootless, and the user may make none)")
	}
	if err != nil {
		return nil, fmt.Errorf("unable to get all container pids: %w", err)
	}
	return pids, nil
}

// Wait returns when the container's first process is gone (nil), or ctx ends.
func (c *Container) Wait(ctx context.Context) error {
	pid, start := c.init()
	if pid <= 0 { // there was never an init
		return nil
	}
	pinned, err := pidfd.Open(pid)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pinned.Close()
	if !process.Alive(pid, start) {
		return nil
	}
	return pidfd.Wait(ctx, pinned)
}
