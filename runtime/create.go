package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/runtime/internal/capability"
	"github.com/livemigrate/migrate/runtime/internal/cgroup"
	"github.com/livemigrate/migrate/runtime/internal/hooks"
	"github.com/livemigrate/migrate/runtime/internal/launch"
	"github.com/livemigrate/migrate/runtime/internal/netdevice"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CreateOptions of Create; nil is the zero value. Files stay the caller's.
type CreateOptions struct {
	Stdin, Stdout, Stderr *os.File   // nil: the caller's own. Not used with a terminal
	ConsoleSocket         *os.File   // with process.terminal: gets the pty's master by SCM_RIGHTS
	PidfdSocket           *os.File   // gets a pidfd of init by SCM_RIGHTS
	ExtraFiles            []*os.File // become 3 and up of the program
	ListenFDs             int        // how many of them are sockets that the program listens on (sd_listen_fds(3))
	PidFile               string     // the pid of init, once it waits
	Notify                bool       // the program gets a NOTIFY_SOCKET, see Container.NotifySocket
	LogFile               string     // recorded for the monitor
	MonitorPid            int        // recorded
}

// creation is a container that is being made.
type creation struct {
	*Container
	resources *cgroups.Resources
	undo      rollback
}

// Create makes a container and returns when its init waits for Start. ErrExists when the id is taken. When it fails
// nothing is left. Init is a child of the calling process, which has to reap it (wait4(2)): so it gets the exit status.
func (r *Runtime) Create(ctx context.Context, id string, p *Plan, o *CreateOptions) (_ *Container, err error) {
	if o == nil {
		o = &CreateOptions{}
	}
	if err := p.checkClocks(); err != nil {
		return nil, err
	}
	if err := warnOfCapabilities(p.Spec.Process, r.log); err != nil {
		return nil, err
	}
	c, err := r.begin(id, p, "")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(c.explainOOM(err), c.undo.run(ctx))
			return
		}
		if err := c.undo.finish(ctx); err != nil {
			c.log.Warn("container is created, but not all is closed", "container", id, "error", err)
		}
	}()
	c.state.LogFile, c.state.MonitorPid = o.LogFile, o.MonitorPid
	if o.Notify {
		if err := c.makeNotifyDir(); err != nil {
			return nil, err
		}
	}
	spec := listening(c.mountedSpec(), o.ListenFDs)
	if o.Notify {
		spec = withNotifySocket(spec)
	}
	process, err := launch.StartInit(ctx, &launch.Init{
		Spec:           spec,
		Bundle:         p.Bundle,
		Rootfs:         p.Rootfs,
		StateDir:       c.dir,
		ID:             id,
		Stdin:          o.Stdin,
		Stdout:         o.Stdout,
		Stderr:         o.Stderr,
		ConsoleSocket:  o.ConsoleSocket,
		PidfdSocket:    o.PidfdSocket,
		ExtraFiles:     o.ExtraFiles,
		NoPivot:        p.NoPivot,
		NoNewKeyring:   p.NoNewKeyring,
		NoSeccompFlags: p.NoSeccompFlags,
		Rootless:       os.Geteuid() != 0,
		CgroupPaths:    c.state.CgroupPaths,
		Place:          c.place,
		Network:        func(pid int) error { return c.connect(ctx, pid) },
		Hooks:          c.runHooks,
		Log:            r.log,
	})
	if err != nil {
		return nil, err
	}
	c.undo.addClose("handle of init", process) // or a process that stays keeps it until it collects garbage
	c.undo.add("kill init", func(context.Context) error {
		_ = process.Signal(unix.SIGKILL) // fails when it is dead already
		return reap(process)
	})
	if o.PidFile != "" {
		if err := writePidFile(o.PidFile, process.Pid); err != nil {
			return nil, err
		}
	}
	r.log.Debug("container created", "container", id, "pid", process.Pid)
	return c.Container, nil
}

// warnOfCapabilities names those that init will leave out: one profile serves many kernels.
func warnOfCapabilities(p *specs.Process, log *slog.Logger) error {
	unknown, err := capability.Unknown(p.Capabilities)
	if len(unknown) > 0 {
		log.Warn(fmt.Sprintf("ignoring unknown or unavailable capabilities: %v", unknown))
	}
	return err
}

// listening tells the program about sockets in its environment, but not those that exec adds later.
func listening(spec *specs.Spec, sockets int) *specs.Spec {
	if sockets == 0 {
		return spec
	}
	out, process := *spec, *spec.Process
	process.Env = append(slices.Clone(process.Env), fmt.Sprintf("LISTEN_FDS=%d", sockets), "LISTEN_PID=1")
	out.Process = &process
	return &out
}

// begin takes the id and makes what needs no process: the state directory and the cgroup, on paper.
func (r *Runtime) begin(id string, p *Plan, arrival string) (_ *creation, err error) {
	if os.Geteuid() != 0 {
		if err := p.checkRootless(); err != nil {
			return nil, err
		}
	}
	p = p.clone()
	config, err := p.cgroupConfig(id, r.systemd, r.rootlessCgroups)
	if err != nil {
		return nil, err
	}
	group, err := cgroup.New(config)
	if err != nil {
		return nil, err
	}
	dir, err := r.reserve(id)
	if err != nil {
		return nil, err
	}
	c := &creation{
		Container: &Container{id: id, dir: dir, group: group, log: r.log, state: &State{
			Version:         stateVersion,
			ID:              id,
			Created:         time.Now().UTC(),
			Plan:            p,
			Rootless:        os.Geteuid() != 0 && r.rootlessCgroups,
			RootlessCgroups: r.rootlessCgroups,
			SystemdCgroup:   r.systemd,
			CgroupPaths:     group.Paths(),
			Network:         p.Network,
			Arrival:         arrival,
		}},
		resources: config.Resources,
	}
	c.undo.add("remove state", func(context.Context) error { return removeStateDir(dir) })
	if arrival == "" { // what the container makes of its files no move has brought
		if err := os.Remove(filepath.Join(p.Bundle, TenantFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			r.log.Debug("the bundle says still that a move has brought it", "error", err)
		}
	}
	if err := group.CheckFree(); err != nil {
		return nil, errors.Join(err, c.undo.run(context.Background()))
	}
	c.undo.add("remove cgroup", func(ctx context.Context) error { return errors.Join(c.KillAll(ctx), group.Destroy()) })
	return c, nil
}

// place puts init into its cgroup before it can have children that would stay outside.
func (c *creation) place(pid int) error {
	err := c.group.Apply(pid)
	if errors.Is(err, cgroup.ErrRootless) {
		if !c.state.Plan.Private(specs.PIDNamespace) {
			c.log.Warn("creating a rootless container with no cgroup and no private pid namespace: not all of its processes can be found to kill them")
		}
		err = nil
	}
	if err != nil {
		return fmt.Errorf("unable to apply cgroup configuration: %w", err)
	}
	c.state.CgroupPaths = c.group.Paths()
	if err := c.makeRdtGroup(); err != nil {
		return err
	}
	return c.joinRdtGroup(pid)
}

// connect gives init's network namespace what comes from the host: a link to a bridge, and network devices.
func (c *creation) connect(ctx context.Context, pid int) error {
	devices := c.state.Plan.Spec.Linux.NetDevices
	if c.state.Network == nil && len(devices) == 0 {
		return nil
	}
	ns, err := netns.OfProcess(pid)
	if err != nil {
		return err
	}
	c.undo.addClose("network namespace", ns)
	if err := c.moveDevices(ns, devices); err != nil {
		return err
	}
	if c.state.Network == nil {
		return nil
	}
	l, err := link.Attach(ctx, ns, c.id, c.state.Network)
	if err != nil {
		return err
	}
	c.undo.add("delete link", func(context.Context) error { return l.Delete() })
	return l.Join()
}

// moveDevices goes by name, so that the same one fails first each time.
func (c *creation) moveDevices(ns *os.File, devices map[string]specs.LinuxNetDevice) error {
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		inside := devices[name].Name
		if inside == "" {
			inside = name
		}
		moved, err := netdevice.Move(name, inside, ns)
		if err != nil {
			return err
		}
		c.undo.add("return network device", func(context.Context) error { return moved.Return(ns) })
	}
	return nil
}

// runHooks runs one kind of hooks; before the first ones limits are set, so that hooks may change them, and the state
// is written: whoever kills us from here on leaves a container that can be deleted.
//
// Limits are not set earlier, because init mounts before: the device rules would hold for block devices it mounts.
func (c *creation) runHooks(ctx context.Context, kind string, pid int) error {
	if c.state.InitProcessPid == 0 {
		if err := c.group.Set(c.resources); err != nil {
			return fmt.Errorf("error setting cgroup config: %w", err)
		}
		if err := c.born(pid); err != nil {
			return err
		}
	}
	state := ociState(c.id, c.state.Plan, specs.StateCreating)
	state.Pid = pid
	return hooks.Run(ctx, c.state.Plan.Spec.Hooks, kind, state)
}

// born records init.
func (c *creation) born(pid int) error {
	start, err := process.StartTime(pid)
	if err != nil {
		return fmt.Errorf("look at init: %w", err)
	}
	targets, err := descriptors(pid)
	if err != nil {
		return err
	}
	c.state.InitProcessPid, c.state.InitProcessStartTime = pid, start
	c.state.NamespacePaths = namespacePaths(pid)
	c.state.ExternalDescriptors = targets
	return firstState(c.dir, c.state)
}

// explainOOM replaces whatever init's death looked like: a memory limit that is too small even for init is the cause.
func (c *creation) explainOOM(err error) error {
	if kills, oomErr := c.group.OOMKills(); oomErr == nil && kills > 0 {
		c.log.Debug("container init was OOM-killed", "error", err)
		return errors.New("container init was OOM-killed (memory limit too low?)")
	}
	return err
}
