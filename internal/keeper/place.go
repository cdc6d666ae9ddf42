package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/filesync"
	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/monitor"
	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/internal/unlinked"
	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/restore"
	"github.com/livemigrate/migrate/runtime"
)

// place is where one container is being received.
type place struct {
	host     *host
	runtime  *runtime.Runtime
	hello    *wire.Hello
	spec     *specs.Spec
	identity *identity
	lock     *idLock

	bundle    string   // <bundles>/<id>, where a container that was here before has left most of its files
	fresh     bool     // the bundle directory is of this move
	before    *tenant  // whose files it held; nil when nobody's
	aside     *aside   // what of them is to be kept; nil when nothing is
	madeLog   bool     // and so is its log,
	log       *os.File // which is open from the start: later its path may lead nowhere. nil without one
	targets   map[int]*filesync.Target
	deleted   *unlinked.Target // nil until the first such file
	came      int64            // bytes of files, in all passes
	feeds     bool             // this host has offered to take pages,
	feedLimit uint64           // of so many bytes
	full      bool             // the disk was too small: what came of the tree is in the way
	images    string
	network   *network     // nil without a network namespace by path
	lost      []netip.Addr // its addresses that do not come along
	prepared  *runtime.Prepared
	memory    *feeding // nil when it comes with the images
	client    *restore.Client
	stdio     *monitor.Stdio
	offset    int64 // of the log,
	unlogged  int64 // and how much before that it lacks
	gate      *restore.Gate
	running   *runtime.Container
	lacks     preflight.Findings // what it runs without
	carrier   *monitor.Carrier   // of its output, from when it runs
	debt      *debt              // memory that comes when it runs already; nil when none does
}

// Images is the directory of the image set.
func (p *place) Images() string { return p.images }

// Sync serves one pass over a tree.
func (p *place) Sync(ctx context.Context, index int, ch handover.Channel) (uint64, error) {
	if index > 0 && index == p.identity.Deleted {
		return p.syncDeleted(ctx, ch)
	}
	target, err := p.target(index)
	if err != nil {
		return 0, err
	}
	target.Limit(p.host.order.Limits.files(p.came))
	stats, err := target.Serve(ctx, ch)
	p.came += stats.Bytes
	if errors.Is(err, filesync.ErrNoSpace) {
		p.full = true
		err = fmt.Errorf("%w: %w", wire.ErrNoSpace, err)
	}
	return uint64(stats.Bytes), err
}

// target opens a tree, once: a delta builds on the pass before it.
func (p *place) target(index int) (*filesync.Target, error) {
	if t := p.targets[index]; t != nil {
		return t, nil
	}
	root := p.treePath(index)
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, fmt.Errorf("make %s: %w", root, err)
	}
	indexPath, err := p.host.order.index(root)
	if err != nil {
		return nil, err
	}
	t, err := filesync.OpenTarget(root, &filesync.TargetOptions{IndexPath: indexPath, Log: p.host.log})
	if err == nil {
		p.targets[index] = t
	}
	return t, err
}

// closeTargets ends the synchronisation. Once the container runs here, its files also have to survive a crash of this host.
func (p *place) closeTargets(ctx context.Context, durable bool) error {
	var err error
	for i, t := range p.targets {
		if durable {
			err = errors.Join(err, t.Sync(ctx))
		}
		err = errors.Join(err, t.Close())
		delete(p.targets, i)
	}
	return err
}

// Prepare does all that needs no images, so that none of it falls into the freeze.
func (p *place) Prepare(ctx context.Context) ([]*wire.Finding, error) {
	p.spec.Root.Path = "rootfs"
	for _, v := range p.identity.Volumes {
		p.spec.Mounts[v.Mount].Source = filepath.Join(p.treePath(v.Tree), v.Path)
	}
	if err := p.findVolumes(); err != nil {
		return nil, err
	}
	if err := p.writeConfig(); err != nil {
		return nil, err
	}
	findings, err := p.makeNetwork(ctx)
	if err != nil {
		return nil, err
	}
	plan, err := runtime.Parse(p.bundle, p.spec, &runtime.PlanOptions{
		Network: p.identity.Network, NoSeccompFlags: p.identity.NoSeccompFlags,
	})
	if err != nil {
		return nil, err
	}
	if err := p.closeBundle(plan); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(p.host.order.logs(p.hello.GetContainer()), 0o700); err != nil {
		return nil, fmt.Errorf("make directory for logs: %w", err)
	}
	if p.images, err = p.host.order.spool(p.hello.GetMove()); err != nil {
		return nil, err
	}
	o := &runtime.PrepareOptions{Arrival: p.hello.GetMove(), Notify: p.identity.Notify, OwnsNetwork: p.network != nil && p.network.Made}
	if p.prepared, err = p.runtime.Prepare(ctx, p.hello.GetContainer(), plan, o); err != nil {
		return nil, err
	}
	completed, err := p.completeNetwork()
	if err != nil {
		return nil, err
	}
	findings = append(findings, completed...)
	if err := p.makeStdio(plan); err != nil {
		return nil, err
	}
	if p.feeds {
		dir := p.host.order.logs(p.hello.GetContainer())
		later := handover.Mode(p.hello.GetMode()).Later()
		if p.memory, err = startFeeding(ctx, dir, p.prepared.StateDir(), p.feedLimit, later, p.host.log); err != nil {
			return nil, err
		}
	}
	start := p.restoreOptions()
	start.LazyPages = p.memory != nil // which is yet to be seen
	p.client, err = restore.Start(context.WithoutCancel(ctx), p.prepared, start)
	return findings.ToWire(), err
}

// makeStdio is for a container with a monitor.
func (p *place) makeStdio(plan *runtime.Plan) (err error) {
	if p.identity.LogFile == "" {
		return nil
	}
	if p.stdio, err = monitor.NewStdio(p.terminal(), p.identity.Input); err != nil {
		return err
	}
	uid, gid, err := plan.HostUser()
	if err != nil {
		return fmt.Errorf("find the owner of standard streams: %w", err)
	}
	return p.stdio.Chown(uid, gid)
}

func (p *place) terminal() bool { return p.spec.Process != nil && p.spec.Process.Terminal }

func (p *place) restoreOptions() *restore.Options {
	o := &restore.Options{
		ImagesDir:      p.images,
		WorkDir:        p.host.order.logs(p.hello.GetContainer()),
		CRIU:           p.host.order.CRIU,
		TCPEstablished: p.hello.GetTcpEstablished(),
		TCPClose:       !p.hello.GetTcpEstablished(),
		FileLocks:      true,
		ExternalUnix:   true,
		AutoDedup:      true, // the memory of the images becomes the container's, instead of being held twice
		LazyPages:      p.memory != nil && p.memory.lazy,
		InNetwork:      true,
		LogLevel:       criuLogLevel(p.host.order.Debug),
		Created:        p.identity.Created,
		LogFile:        p.identity.LogFile,
		Log:            p.host.log,
	}
	if p.stdio != nil {
		o.Stdin, o.Stdout, o.Stderr = p.stdio.Stdin, p.stdio.Stdout, p.stdio.Stderr
		o.Console = p.stdio.TakeConsole
		o.ConsoleSocket = p.stdio.ConsoleSocket
		o.MonitorPid = os.Getpid() // this process becomes it
	}
	return o
}

// errNoPages: no offer of this host says that it takes pages.
var errNoPages = errors.New("this host stores no pages")

// Pages stores the pages of a frame.
func (p *place) Pages(frame []byte) error {
	if p.memory == nil {
		return errNoPages
	}
	return p.memory.put(frame)
}

// Stored is which slots were stored since the last Settle.
func (p *place) Stored(slot uint64, size int) []byte {
	if p.memory == nil {
		return nil
	}
	return p.memory.came.bits(slot, size)
}

// Settle begins a round.
func (p *place) Settle() {
	if p.memory != nil {
		p.memory.came.begin()
	}
}

// Yield waits for another move of the container.
func (p *place) Yield(ctx context.Context) bool { return p.lock.yield(ctx) }

// Forget drops what was stored: the memory comes in CRIU's images.
func (p *place) Forget() error {
	if p.memory == nil {
		return nil
	}
	m := p.memory
	p.memory = nil
	return m.close()
}

// Owe says which pages come when the container runs already.
func (p *place) Owe(owed handover.Owed) (handover.Debt, error) {
	if p.memory == nil {
		return nil, errNoPages
	}
	var err error
	p.debt, err = p.memory.owe(feed.Owed(owed))
	if err != nil {
		return nil, err
	}
	return p.debt, nil
}

// Restore restores up to the gate.
func (p *place) Restore(ctx context.Context, data []byte) (handover.Gate, error) {
	s, err := decode[stdio]("stdio", data)
	if err != nil {
		return nil, err
	}
	p.offset = s.LogOffset
	if p.stdio != nil {
		if err := p.stdio.Fill(s.Output, s.Input, s.InputEnded); err != nil {
			return nil, err
		}
	}
	if err := p.findVolumes(); err != nil { // the last delta may have changed them
		return nil, err
	}
	if p.memory != nil {
		if err := p.memory.load(p.images); err != nil {
			return nil, err
		}
	}
	if closed, err := image.Disconnect(p.images, p.lost); err != nil {
		return nil, err
	} else if closed > 0 {
		p.host.log.Info("connections are closed: their address did not come along", "number", closed)
	}
	if err := p.nameDeleted(); err != nil {
		return nil, err
	}
	if err := failpoint.Hit(ctx, failpoint.PeerNamed); err != nil {
		return nil, err
	}
	o := p.restoreOptions()
	o.Client, p.client = p.client, nil
	p.gate, err = restore.Begin(ctx, p.prepared, o)
	return p, err
}

// Wrote is how long the container's state took to be written in Open.
func (p *place) Wrote() time.Duration { return p.gate.Wrote() }

// Lacks is what the container does without here.
func (p *place) Lacks() []*wire.Finding { return p.lacks.ToWire() }

// Open lets the container run: the journal first, then the network, then its first instruction.
func (p *place) Open(ctx context.Context, running func() error) error {
	stalled := p.stalled()
	c, err := p.gate.Open(ctx, func() error {
		if p.memory != nil {
			if err := p.memory.ready(ctx); err != nil {
				return err
			}
		}
		if err := running(); err != nil {
			return err
		}
		p.connect(context.WithoutCancel(ctx), stalled)
		return nil
	})
	p.running = c
	if p.debt != nil && c != nil {
		p.debt.init.Store(int64(c.InitPid()))
	}
	// Until this process is the monitor it waits for a source that ends its copy, for questions and maybe for memory.
	if err := p.carry(context.WithoutCancel(ctx)); err != nil {
		p.host.log.Error("the container's output waits for the end of the move", "error", err)
	}
	return err
}

// finish clears up after a container that runs: what the service need not wait for. The lock is left to whoever goes on.
func (p *place) finish(ctx context.Context) error {
	err := errors.Join(p.closeDeleted(), p.closeTargets(ctx, true), os.RemoveAll(p.images))
	if p.network != nil {
		err = errors.Join(err, p.network.done())
	}
	if p.memory != nil {
		err = errors.Join(err, p.memory.finish(ctx, p.running))
	}
	return err
}

// Discard undoes everything. Files of a tree stay, because the next attempt needs to send only what they lack, unless they
// have filled the disk.
func (p *place) Discard(ctx context.Context) error {
	var err error
	if p.gate != nil {
		err = p.gate.Abort(ctx)
	}
	if p.client != nil {
		err = errors.Join(err, p.client.Close())
	}
	if p.stdio != nil {
		err = errors.Join(err, p.stdio.Close())
	}
	if p.prepared != nil {
		err = errors.Join(err, p.prepared.Discard(ctx))
	}
	if p.network != nil {
		err = errors.Join(err, p.network.discard(ctx))
	}
	if p.memory != nil { // after the processes
		err = errors.Join(err, p.memory.close())
	}
	if p.images != "" {
		err = errors.Join(err, os.RemoveAll(p.images))
	}
	err = errors.Join(err, p.closeDeleted(), p.closeTargets(ctx, false))
	if p.full && p.neverLived() {
		err = errors.Join(err, os.RemoveAll(p.bundle))
	} else {
		p.moveOut()
	}
	err = errors.Join(err, p.closeLog(), p.removeLog())
	return errors.Join(err, p.lock.Close())
}
