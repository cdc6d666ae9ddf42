package runtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/runtime/internal/cgroup"
	"github.com/livemigrate/migrate/runtime/internal/rootfs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// PrepareOptions of Prepare; nil is the zero value.
type PrepareOptions struct {
	PidFile string // written by Adopt
	Arrival string // the move that brings it, for State
	Notify  bool   // it has a NOTIFY_SOCKET, as with CreateOptions.Notify

	// OwnsNetwork: the network namespace that its config names by path was made for it alone, and ends with it.
	OwnsNetwork bool
}

// ExternalMount is a mount that comes from outside of the image set: at Destination in the container belongs what is at
// Source on the host.
type ExternalMount = rootfs.ExternalMount

// Prepared is the place of a container whose processes come from elsewhere. Its id is taken. It ends with Adopt and
// Resumed, or with Discard. Methods are called one at a time.
type Prepared struct {
	*creation
	root    string
	null    string // the null device for masked files, "" for the host's
	pidFile string
	netns   *os.File
	link    *link.Link
	adopted *Container
}

// Prepare takes the id and does everything for a restore that needs no process: the cgroup, a mount of the rootfs with
// every mount point in it, from which nothing spreads back, a null device for masked files and, with a network of ours and
// no user namespace, a network namespace with the link in it, which is not on the bridge yet. One that the config names by its
// path has to be there. ErrExists when the id is
// taken. When it fails nothing is left.
func (r *Runtime) Prepare(ctx context.Context, id string, plan *Plan, o *PrepareOptions) (_ *Prepared, err error) {
	if o == nil {
		o = &PrepareOptions{}
	}
	c, err := r.begin(id, plan, o.Arrival)
	if err != nil {
		return nil, err
	}
	c.state.OwnsNetwork = o.OwnsNetwork
	p := &Prepared{creation: c, root: filepath.Join(c.dir, rootDir), pidFile: o.PidFile}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Discard(ctx))
		}
	}()
	if o.Notify {
		if err := c.makeNotifyDir(); err != nil {
			return nil, err
		}
	}
	if err := c.place(-1); err != nil {
		return nil, err
	}
	if err := p.mountRoot(); err != nil {
		return nil, err
	}
	if err := p.mountNull(); err != nil {
		return nil, err
	}
	if _, user := c.state.Plan.namespace(specs.UserNamespace); c.state.Network != nil && !user {
		if err := p.makeNetwork(ctx); err != nil {
			return nil, err
		}
	}
	if path := plan.NamespacePath(specs.NetworkNamespace); path != "" {
		if p.netns, err = netns.Open(path); err != nil {
			return nil, err
		}
		p.undo.addClose("network namespace", p.netns)
	}
	// Should this process die, what is there so far can be found and deleted: a container that has stopped.
	return p, firstState(c.dir, c.state)
}

// mountRoot gives CRIU a root of its own to put the container's mounts on: what is mounted there must not show up in the
// bundle, and goes away in one piece when the state directory is removed.
func (p *Prepared) mountRoot() error {
	plan := p.state.Plan
	if err := os.Mkdir(p.root, 0o700); err != nil {
		return fmt.Errorf("make root: %w", err)
	}
	if err := unix.Mount(plan.Rootfs, p.root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return &os.PathError{Op: "bind mount", Path: plan.Rootfs, Err: err}
	}
	// A slave, so that nothing spreads back into the bundle, and with peers of its own besides: where the container's
	// root got its mounts from a shared one, as it does wherever systemd has shared /, CRIU gives the new root a place in
	// our root's group, and the kernel refuses that for a private mount.
	for _, kind := range []uintptr{unix.MS_SLAVE, unix.MS_SHARED} {
		if err := unix.Mount("", p.root, "", unix.MS_REC|kind, ""); err != nil {
			return &os.PathError{Op: "change propagation of", Path: p.root, Err: err}
		}
	}
	return rootfs.MakeMountPoints(p.root, p.mountedSpec(), plan.Bundle)
}

// mountNull makes the null device that masks files. In a user namespace it is the host's, as in a container that was
// created: nobody in there has a right over it.
func (p *Prepared) mountNull() error {
	plan := p.state.Plan
	if plan.Spec.Linux == nil || len(plan.Spec.Linux.MaskedPaths) == 0 || rootfs.HasNamespace(plan.Spec, specs.UserNamespace) {
		return nil
	}
	dir := filepath.Join(p.dir, nullDir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make null device: %w", err)
	}
	null, err := rootfs.MountNull(dir, plan.Spec.Linux.MountLabel)
	if err != nil && !errors.Is(err, os.ErrPermission) { // a created container has the host's there, too
		return fmt.Errorf("make null device: %w", err)
	}
	p.null = null
	return nil
}

func (p *Prepared) makeNetwork(ctx context.Context) error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	p.netns = ns
	p.undo.addClose("network namespace", ns) // the processes hold it, once they are there
	l, err := link.Attach(ctx, ns, p.id, p.state.Network)
	if err != nil {
		return err
	}
	p.link = l
	p.undo.add("delete link", func(context.Context) error { return l.Delete() })
	return nil
}

// ID is the container's name.
func (p *Prepared) ID() string { return p.id }

// Plan is a copy of what the container is to be.
func (p *Prepared) Plan() *Plan { return p.state.Plan.clone() }

// StateDir is the directory that the container's state will be in.
func (p *Prepared) StateDir() string { return p.dir }

// Root is where CRIU finds the root of the container's mounts.
func (p *Prepared) Root() string { return p.root }

// NetNS is the network namespace that was prepared, or is named by its path; nil without one. It belongs to the Prepared.
func (p *Prepared) NetNS() *os.File { return p.netns }

// Link is the prepared link, nil without one. With a user namespace the link is made by CRIU: SetLink tells about it.
func (p *Prepared) Link() *link.Link { return p.link }

// SetLink makes a link that somebody else made the container's, to be deleted with it.
func (p *Prepared) SetLink(l *link.Link) {
	p.link = l
	p.undo.add("delete link", func(context.Context) error { return l.Delete() })
}

// CgroupPaths are the container's cgroups by controller.
func (p *Prepared) CgroupPaths() map[string]string { return maps.Clone(p.state.CgroupPaths) }

// ExternalMounts are the mounts that CRIU has to be told the sources of.
func (p *Prepared) ExternalMounts() ([]ExternalMount, error) {
	plan := p.state.Plan
	return rootfs.ExternalMounts(p.mountedSpec(), plan.Bundle, rootfs.Here{Rootfs: plan.Rootfs, CgroupPaths: p.state.CgroupPaths, Null: p.null})
}

// PlaceInit puts the first process into the cgroups and sets the limits, before it has children.
func (p *Prepared) PlaceInit(pid int) error {
	if err := p.place(pid); err != nil && !errors.Is(err, cgroup.ErrRootless) {
		return err
	}
	if err := p.group.Set(p.resources); err != nil {
		return fmt.Errorf("error setting cgroup config: %w", err)
	}
	return nil
}

// Expel takes a process that was placed and is not the container's out of its cgroups again, as far as a freeze goes.
func (p *Prepared) Expel(pid int) error { return p.group.Expel(pid) }

// Scratch makes a place for mounts of the caller's, from which CRIU is to bind: an empty directory that nothing spreads from. All
// that is mounted in it is gone when the container runs, or is discarded.
func (p *Prepared) Scratch() (string, error) {
	dir := filepath.Join(p.dir, scratchDir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("make scratch: %w", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700,size=64k"); err != nil {
		return "", fmt.Errorf("mount scratch: %w", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return "", fmt.Errorf("mount scratch: %w", err)
	}
	return dir, nil
}
