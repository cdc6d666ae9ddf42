package runtime

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/livemigrate/migrate/runtime/internal/launch"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ExecOptions of Exec. Files stay the caller's.
type ExecOptions struct {
	Process               *specs.Process    // what it leaves open is as for init
	Stdin, Stdout, Stderr *os.File          // nil: the caller's own. Not used with a terminal
	ConsoleSocket         *os.File          // with Process.Terminal: gets the pty's master by SCM_RIGHTS
	PidfdSocket           *os.File          // gets a pidfd by SCM_RIGHTS
	ExtraFiles            []*os.File        // become 3 and up
	PidFile               string            // the process's pid
	Cgroup                map[string]string // a cgroup below the container's, by controller ("" for all); it must exist
	IgnorePaused          bool              // in a paused container: the process starts at resume
}

// Exec is a process that joined a container. It is the caller's child.
type Exec struct {
	process *launch.Process
}

// Pid is the process's pid in the caller's pid namespace.
func (e *Exec) Pid() int { return e.process.Pid }

// Wait returns the exit status, 128+n for a death by signal n. It is called once.
func (e *Exec) Wait() (int, error) { return e.process.Wait() }

// Signal sends a signal to the process.
func (e *Exec) Signal(sig syscall.Signal) error { return e.process.Signal(sig) }

// Kill ends the process and reaps it.
func (e *Exec) Kill() error {
	_ = e.process.Signal(unix.SIGKILL) // fails when it is dead already
	return reap(e.process)
}

// CanExec tells whether the container takes another process now: nil, ErrExecStopped or ErrPaused.
func (c *Container) CanExec(ignorePaused bool) error {
	status, err := c.Status()
	switch {
	case err != nil:
		return err
	case status == Stopped:
		return ErrExecStopped
	case status == Paused && !ignorePaused:
		return ErrPaused
	}
	return nil
}

// Exec starts a process in a running container and returns when it runs. ErrExecStopped, ErrPaused.
func (c *Container) Exec(ctx context.Context, o *ExecOptions) (*Exec, error) {
	if err := c.CanExec(o.IgnorePaused); err != nil {
		return nil, err
	}
	if err := checkProcess(o.Process); err != nil {
		return nil, err
	}
	state := c.State()
	target := complete(o.Process, state.Plan.Spec.Process)
	if err := warnOfCapabilities(target, c.log); err != nil {
		return nil, err
	}
	process, err := launch.StartExec(ctx, &launch.Exec{
		Spec:           state.Plan.Spec,
		Process:        target,
		ID:             c.id,
		Bundle:         state.Plan.Bundle,
		InitPid:        state.InitProcessPid,
		InitStart:      state.InitProcessStartTime,
		Stdin:          o.Stdin,
		Stdout:         o.Stdout,
		Stderr:         o.Stderr,
		ConsoleSocket:  o.ConsoleSocket,
		PidfdSocket:    o.PidfdSocket,
		ExtraFiles:     o.ExtraFiles,
		NoNewKeyring:   state.Plan.NoNewKeyring,
		NoSeccompFlags: state.Plan.NoSeccompFlags,
		Rootless:       os.Geteuid() != 0,
		CgroupPaths:    state.CgroupPaths,
		Place: func(pid int) error {
			if err := c.group.Join(pid, state.InitProcessPid, o.Cgroup); err != nil {
				return err
			}
			err := c.joinRdtGroup(pid)
			if errors.Is(err, fs.ErrNotExist) { // removed, or the filesystem unmounted: that must not lock us out
				c.log.Warn("the process has the shares of its parent: the container's resctrl group is gone", "container", c.id, "error", err)
				return nil
			}
			return err
		},
		Log: c.log,
	})
	if err != nil {
		return nil, err
	}
	if o.PidFile != "" {
		if err := writePidFile(o.PidFile, process.Pid); err != nil {
			return nil, errors.Join(err, (&Exec{process: process}).Kill())
		}
	}
	c.log.Debug("process joined the container", "container", c.id, "pid", process.Pid)
	return &Exec{process: process}, nil
}

// complete fills in from init's process what another one leaves open.
func complete(p, init *specs.Process) *specs.Process {
	out := *p
	if out.Capabilities == nil {
		out.Capabilities = init.Capabilities
	}
	if out.ApparmorProfile == "" {
		out.ApparmorProfile = init.ApparmorProfile
	}
	if out.SelinuxLabel == "" {
		out.SelinuxLabel = init.SelinuxLabel
	}
	if len(out.Rlimits) == 0 {
		out.Rlimits = init.Rlimits
	}
	if out.OOMScoreAdj == nil {
		out.OOMScoreAdj = init.OOMScoreAdj
	}
	if out.Scheduler == nil {
		out.Scheduler = init.Scheduler
	}
	if out.IOPriority == nil {
		out.IOPriority = init.IOPriority
	}
	if out.ExecCPUAffinity == nil {
		out.ExecCPUAffinity = init.ExecCPUAffinity
	}
	return &out
}

// reap takes a child's exit status, so that it is no zombie.
func reap(p *launch.Process) error {
	_, err := p.Wait()
	return err
}
