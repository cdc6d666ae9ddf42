package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/runtime/internal/hooks"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// AdoptOptions of Adopt; nil is the zero value.
type AdoptOptions struct {
	ExternalDescriptors []string  // where 0, 1 and 2 of init point now
	Created             time.Time // zero: now
	LogFile             string
	MonitorPid          int
}

// RunHooks runs the hooks of a container that is being created. The namespaces exist, the processes do not run yet.
func (p *Prepared) RunHooks(ctx context.Context, pid int) error {
	state := ociState(p.id, p.state.Plan, specs.StateCreating)
	state.Pid = pid
	for _, kind := range []string{hooks.Prestart, hooks.CreateRuntime} {
		if err := hooks.Run(ctx, p.state.Plan.Spec.Hooks, kind, state); err != nil {
			return err
		}
	}
	return nil
}

// Adopt makes the processes below pid the container: it writes the state, so that the container can be found and deleted
// whatever happens to this process. They must not run yet; until Resumed, Discard undoes this too.
func (p *Prepared) Adopt(_ context.Context, pid int, o *AdoptOptions) (*Container, error) {
	if o == nil {
		o = &AdoptOptions{}
	}
	start, err := process.StartTime(pid)
	if err != nil {
		return nil, fmt.Errorf("look at restored init: %w", err)
	}
	state := p.state.clone()
	state.InitProcessPid, state.InitProcessStartTime = pid, start
	state.NamespacePaths = namespacePaths(pid)
	state.ExternalDescriptors = o.ExternalDescriptors
	state.LogFile, state.MonitorPid = o.LogFile, o.MonitorPid
	if !o.Created.IsZero() {
		state.Created = o.Created.UTC()
	}
	if p.link != nil {
		network := p.link.Config()
		state.Network = &network
	}
	if p.pidFile != "" {
		if err := writePidFile(p.pidFile, pid); err != nil {
			return nil, err
		}
	}
	if err := p.joinAllRdtGroup(); err != nil {
		return nil, err
	}
	if err := firstState(p.dir, &state); err != nil {
		return nil, err
	}
	p.adopted = &Container{id: p.id, dir: p.dir, group: p.group, log: p.log, state: &state}
	return p.adopted, nil
}

// Resumed says that the adopted processes run. The container is deleted as any other from here on, and Discard has no
// effect any more. The poststart hooks run; when one fails the container is killed, and still has to be deleted.
func (p *Prepared) Resumed(ctx context.Context) error {
	// CRIU mounted the container's mounts in the container's namespace; ours was only where they started.
	err := errors.Join(p.undo.finish(ctx), unmountPrepared(p.dir))
	return errors.Join(err, p.adopted.poststart(ctx))
}

// Discard undoes Prepare; what CRIU made in the cgroup is killed. Idempotent, and without effect after Resumed.
func (p *Prepared) Discard(ctx context.Context) error { return p.undo.run(ctx) }
