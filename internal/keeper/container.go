package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/monitor"
	"github.com/livemigrate/migrate/internal/netspace"
	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/runtime"
)

// container is a running container as the handover's source side wants it.
type container struct {
	*runtime.Container
	order     *Order
	move      string // name of the move that it is opened for
	log       *slog.Logger
	client    *checkpoint.Client // CRIU, started before it is needed; nil once the dump has taken it over
	trees     []*tree
	deleted   *deletedFiles // nil without any
	binds     []*bind
	marks     []*preflight.Mark // on those that the peer must have too
	facts     criuFacts
	namespace *netspace.Record // its network namespace, if the peer makes it
	memory    *privateMemory   // while it is followed
	held      *held            // once it is dumped
	hold      *monitor.Hold    // from shortly before it stands still until it does
	work      work             // when its memory began to be followed
	// processors are what it takes by itself; 0 until somebody wants to know.
	processors float64
}

// openContainer gets everything ready that costs the container nothing: CRIU is started, the change logs run.
func openContainer(ctx context.Context, o *Order, move string, log *slog.Logger) (_ *container, err error) {
	if err := o.awaitArrival(ctx, o.Container); err != nil {
		return nil, err
	}
	c, err := remains(o, move, log)
	if err != nil {
		return nil, err
	}
	if err := feed.Await(ctx, c.StateDir()); err != nil { // of a restore from images
		return nil, err
	}
	if err := checkRunning(c.Container); err != nil {
		return nil, err
	}
	c.settle(livesHere)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.client, err = checkpoint.Start(ctx, c.Container, c.dumpOptions("")); err != nil {
		return nil, err
	}
	var asked sync.WaitGroup
	asked.Go(func() { c.facts = o.askCRIU(ctx, c.client, log) })
	err = c.openTrees(ctx)
	asked.Wait()
	return c, err
}

// remains opens a container in whatever state a move has left it.
func remains(o *Order, move string, log *slog.Logger) (*container, error) {
	rt, err := runtime.Open(&runtime.Options{Root: o.Root, SystemdCgroup: o.SystemdCgroup, Log: log})
	if err != nil {
		return nil, err
	}
	c, err := rt.Load(o.Container)
	if err != nil {
		return nil, err
	}
	return &container{Container: c, order: o, move: move, log: log}, nil
}

// Close gives up what openContainer got ready.
func (c *container) Close() error {
	var err error
	if c.client != nil {
		err = c.client.Close()
	}
	err = errors.Join(err, c.unmark(), c.leaveDeleted())
	for _, t := range c.trees {
		if t.source != nil {
			err = errors.Join(err, t.source.Close())
		}
	}
	return err
}

// openTrees starts their change logs.
func (c *container) openTrees(ctx context.Context) error {
	c.plan()
	for _, t := range c.trees {
		index, err := c.order.index(t.key())
		if err != nil {
			return err
		}
		if t.source, err = t.open(ctx, index); err != nil {
			return err
		}
		if err := t.source.Watch(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Hello describes the container to the peer. The findings are this host's.
func (c *container) Hello(ctx context.Context) (*wire.Hello, []*wire.Finding, error) {
	began := time.Now()
	needs, findings, err := c.preflight(ctx)
	if err != nil {
		return nil, nil, err
	}
	needs.Memory += c.order.Besides
	c.log.Debug("preflight", "took", time.Since(began), "processes", needs.Processes, "findings", len(findings))
	state := c.State()
	spec := c.Spec()
	for _, b := range c.binds {
		spec.Mounts[b.index].Source = absolute(b.Source, c.Plan().Bundle)
	}
	config, err := json.Marshal(spec)
	if err != nil {
		return nil, nil, fmt.Errorf("encode config: %w", err)
	}
	who := identity{
		Network: state.Network, Namespace: c.namespace, LogFile: state.LogFile, Notify: state.Notify, Created: state.Created,
		NoSeccompFlags: state.Plan.NoSeccompFlags, Volumes: c.volumes(), Input: c.hasPipe(0), Foreign: c.foreignStdio(),
	}
	if who.Binds, err = c.markBinds(); err != nil {
		return nil, nil, err
	}
	hello := &wire.Hello{
		Container:      c.ID(),
		Kernel:         kernelRelease(),
		Machine:        machine(),
		MigrateVersion: version(),
		CriuVersion:    uint32(c.facts.version),
		Cpuinfo:        c.facts.cpuinfo,
		Config:         config,
		MemoryBytes:    c.resident(),
		TcpEstablished: !c.closes(),
		Source:         hostname(),
		Needs:          needs.ToWire(),
	}
	for _, t := range c.trees {
		hello.Trees = append(hello.Trees, &wire.Tree{Name: t.name, Destination: t.destination, Bytes: t.size()})
	}
	if c.deleted != nil {
		who.Deleted = len(hello.Trees)
		hello.Trees = append(hello.Trees, &wire.Tree{Name: "deleted", Bytes: c.deleted.source.Bytes()})
	}
	hello.Identity, err = json.Marshal(who)
	return hello, findings.ToWire(), err
}

// preflight looks at this host and at the container on it. needs is for the peer.
func (c *container) preflight(ctx context.Context) (*preflight.Needs, preflight.Findings, error) {
	if err := checkpoint.Settle(ctx, c.InitPid()); err != nil {
		return nil, nil, err
	}
	subject, err := preflight.SubjectOf(c.Container)
	if err != nil {
		return nil, nil, err
	}
	subject.Keeps, subject.Closes = c.order.TCP == TCPEstablished, c.closes()
	findings := preflight.Container(c.Container, c.dumpOptions(""))
	findings = append(findings, c.judgeBinds()...)
	subject.Binds = c.localBinds()
	if err := c.findDeleted(); err != nil {
		return nil, nil, err
	}
	subject.Ahead, subject.Reread = c.ahead()
	if c.order.Feed {
		if err := c.fits(); err != nil {
			findings = append(findings, preflight.Misfit(preflight.Warning, preflight.MemoryLimit, "raise its limit",
				"%v: its memory goes while it stands still", err)...)
		}
	}
	needs, scanned, err := preflight.Scan(ctx, subject)
	if err != nil {
		return nil, nil, err
	}
	findings = append(findings, scanned...)
	record, network, err := preflight.Network(c.Container, subject)
	if err != nil {
		return nil, nil, err
	}
	c.namespace = record
	findings = append(findings, network...)
	host, err := preflight.Host(ctx, &preflight.HostOptions{
		Role: preflight.Source, Needs: needs, UserNamespace: c.Plan().Private(specs.UserNamespace),
		Feed: c.order.Feed, Spool: c.order.spoolParent(),
	})
	if err != nil {
		return nil, nil, err
	}
	findings = append(findings, host...)
	findings = append(findings, preflight.JudgeCRIU(c.facts.version, "this host's")...)
	return needs, findings.Sort(), nil
}

// resident is the memory that the container has, in bytes. Where no cgroup tells, processes that share pages are counted in full.
func (c *container) resident() uint64 {
	if used, err := preflight.UsageOf(c.State().CgroupPaths); err == nil {
		return used.Anonymous + used.Shared
	}
	pids, err := c.Processes()
	if err != nil {
		return 0
	}
	var pages uint64
	for _, pid := range pids {
		statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			continue // it has just ended
		}
		if fields := strings.Fields(string(statm)); len(fields) > 1 {
			n, _ := strconv.ParseUint(fields[1], 10, 64)
			pages += n
		}
	}
	return pages * uint64(os.Getpagesize())
}

// Trees are the directories that travel.
func (c *container) Trees() []handover.Tree {
	var trees []handover.Tree
	for _, t := range c.trees {
		trees = append(trees, t)
	}
	if c.deleted != nil {
		trees = append(trees, c.deleted)
	}
	return trees
}

// closes tells whether its TCP connections end: by default where it has its host's network, whose addresses stay.
func (c *container) closes() bool {
	switch c.order.TCP {
	case TCPClose:
		return true
	case TCPEstablished:
		return false
	}
	shares, err := preflight.SharesNetwork(c.Container)
	return err == nil && shares
}

func (c *container) dumpOptions(images string) *checkpoint.Options {
	return &checkpoint.Options{
		ImagesDir:       images,
		CRIU:            c.order.CRIU,
		TCPEstablished:  !c.closes(),
		TCPClose:        c.closes(),
		TCPSkipInFlight: c.order.skipInFlight,
		FileLocks:       true,
		LinkRemap:       true,
		GhostLimit:      preflight.MostDeleted,
		ExternalUnix:    true,
		LogLevel:        criuLogLevel(c.order.Debug),
		NoManifest:      true,
		LeaveMemory:     c.order.Feed, // as it should be; see Dump
		Log:             c.log,
	}
}

// Dump stops the container.
func (c *container) Dump(ctx context.Context, dir string, gates handover.DumpGates) (handover.Held, error) {
	if err := checkRunning(c.Container); err != nil { // its user may have paused it meanwhile
		return nil, err
	}
	o := c.dumpOptions(dir)
	o.WorkDir = c.order.logs(c.ID())
	o.LeaveMemory = c.memory != nil
	o.ExternalFiles = c.externalFiles()
	o.BeforeFreeze = func(ctx context.Context) error {
		// Tasks without processor time take until the next period to stand still; CRIU saves the quota; and whoever thaws
		// the container should not have to think of it.
		if err := c.FullSpeed(); err != nil {
			return err
		}
		c.holdInput(ctx)
		gates.Freezing()
		return nil
	}
	o.AfterFreeze = func(ctx context.Context) error {
		gates.Frozen()
		c.keepInput()
		if c.memory != nil {
			c.memory.frozen(ctx)
		}
		return nil
	}
	// From here to the end of the move nobody else may thaw it. Marked while it still runs: the freeze is no time for fsync.
	if err := c.mark(c.move); err != nil {
		return nil, err
	}
	o.Client, c.client = c.client, nil
	h, err := checkpoint.Begin(ctx, c.Container, o)
	if err != nil {
		c.forgetLinks()
		return nil, errors.Join(err, c.released())
	}
	stopped := &held{h, c, dir}
	c.held = stopped
	if err := image.CheckTree(dir); err != nil { // the peer could not restore it: here it costs a moment, there the whole freeze
		return nil, errors.Join(fmt.Errorf("check the dump: %w", err), stopped.Rollback(ctx))
	}
	return stopped, nil
}

// Growing: of a dump that leaves memory out, the page files of processes are put in order at its end.
func (c *container) Growing(dir string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "ghost-file-*"))
	if err != nil {
		return nil, err
	}
	if c.memory == nil {
		pages, err := filepath.Glob(filepath.Join(dir, "pages-*"))
		if err != nil {
			return nil, err
		}
		paths = append(paths, pages...)
	}
	for i, path := range paths {
		paths[i] = filepath.Base(path)
	}
	if c.memory == nil {
		return paths, nil
	}
	shared, err := image.SharedPages(dir)
	return append(paths, shared...), err
}

// released ends the mark of a container that runs again. One that could not be thawed keeps it, and is ErrStillFrozen.
func (c *container) released() error {
	status, err := c.Status()
	if err != nil || status == runtime.Paused {
		return errors.Join(handover.ErrStillFrozen, err)
	}
	c.releaseInput()
	return errors.Join(c.fullSpeed(), c.mark(""))
}

func (c *container) mark(move string) error {
	return c.UpdateState(func(s *runtime.State) { s.Move = move })
}
