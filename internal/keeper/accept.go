package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/monitor"
	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/runtime"
)

// look tells what would keep this host from taking the container. Nothing of it is made; what the host can do and what CRIU was
// asked are kept for the next look. An error is a hello that makes no sense, or a look that failed.
func (p *place) look(ctx context.Context) (*wire.Offer, error) {
	var f preflight.Findings
	if theirs, ours := p.hello.GetMachine(), machine(); theirs != ours {
		f = append(f, preflight.Misfit(preflight.Blocker, preflight.Machine, "choose another peer", "it runs on %s, this host is %s", theirs, ours)...)
	}
	var err error
	if p.spec, err = decode[specs.Spec]("config.json", p.hello.GetConfig()); err != nil {
		return nil, err
	}
	if p.identity, err = decode[identity]("identity", p.hello.GetIdentity()); err != nil {
		return nil, err
	}
	p.giveLog()
	if p.spec.Root == nil || p.spec.Linux == nil {
		return nil, append(f, preflight.Misfit(preflight.Blocker, preflight.Configured, "", "its config.json has no root or is not for Linux")...).Refusal()
	}
	if p.identity.Foreign {
		f = append(f, preflight.Misfit(preflight.Warning, preflight.ForeignStdio, "read it there; \"migrate attach\" shows it, and gives input",
			"its standard streams belong to the program that started it, which stays behind: here its output goes on in %s", p.identity.LogFile)...)
	}
	f = append(f, preflight.Kernels(p.hello.GetKernel(), kernelRelease())...)
	if _, err := p.runtime.Load(p.hello.GetContainer()); !errors.Is(err, runtime.ErrNotExist) && !p.host.unsettled(p.hello.GetContainer()) {
		f = append(f, preflight.Misfit(preflight.Blocker, preflight.IDTaken, "delete it there, or choose another peer",
			"container with given ID already exists: %s", p.hello.GetContainer())...)
	}
	vacancy, err := p.vacancy()
	if err != nil {
		return nil, err
	}
	arrival, err := p.arrival()
	if err != nil {
		return nil, err
	}
	f = append(append(append(f, vacancy...), p.tooLarge()...), preflight.Arrive(arrival)...)
	host, err := preflight.Host(ctx, p.hostOptions(arrival.Needs))
	if err != nil {
		return nil, err
	}
	criuVersion, criu, err := p.lookAtCRIU(ctx)
	if err != nil {
		return nil, err
	}
	f = append(append(f, host...), criu...)
	p.feeds = p.host.order.Feed && canFeed(p.spec)
	if p.feedLimit, err = storeLimit(); err != nil {
		return nil, err
	}
	if most := uint64(p.host.order.Limits.Size) / memory.PageSize * memory.PageSize; most > 0 {
		p.feedLimit = min(p.feedLimit, most)
	}
	if err := f.Sort().Refusal(); err != nil {
		return nil, err
	}
	offer := &wire.Offer{
		Destination:    hostname(),
		Kernel:         kernelRelease(),
		MigrateVersion: version(),
		CriuVersion:    uint32(criuVersion),
		Feeds:          p.feeds,
		FeedLimit:      p.feedLimit,
	}
	offer.SetFindings(f.ToWire())
	return offer, nil
}

// arrival is the container as the preflight wants it.
func (p *place) arrival() (*preflight.Arrival, error) {
	travels, err := p.travels()
	if err != nil {
		return nil, err
	}
	a := &preflight.Arrival{
		Spec: p.spec, Needs: preflight.NeedsFromWire(p.hello.GetNeeds()), Network: p.identity.Network, LogFile: p.identity.LogFile,
		Travels: travels, Binds: p.identity.Binds, Bundles: p.host.order.Bundles,
		Namespace: p.identity.Namespace, Hooked: p.host.order.NetworkHook != "",
	}
	if a.LogFile == p.ourLog() { // its directory is made with it
		a.LogFile = ""
	}
	for i, t := range p.hello.GetTrees() {
		var there uint64 // what has come already is not counted again
		if p.stays(i) && (i == 0 || i != p.identity.Deleted) {
			there = (&tree{path: p.treePath(i)}).size()
		}
		a.Files += t.GetBytes() - min(there, t.GetBytes())
	}
	if a.Cgroups, err = p.runtime.CgroupPaths(p.hello.GetContainer(), p.spec); err != nil {
		return nil, fmt.Errorf("%w: %w", wire.ErrIncompatible, err)
	}
	return a, nil
}

func (p *place) hostOptions(needs *preflight.Needs) *preflight.HostOptions {
	return &preflight.HostOptions{
		Role: preflight.Peer, Needs: needs, Feed: p.host.order.Feed, Spool: p.host.order.spoolParent(),
		Follows: follows(handover.Mode(p.hello.GetMode())), UserNamespace: hasUserNamespace(p.spec),
	}
}

// travels are the mounts whose contents come along.
func (p *place) travels() (map[int]bool, error) {
	travels, used := make(map[int]bool), map[int]bool{0: true}
	for _, v := range p.identity.Volumes {
		switch {
		case v.Mount < 0 || v.Mount >= len(p.spec.Mounts) || travels[v.Mount]:
			return nil, fmt.Errorf("%w: a volume without a mount of its own", wire.ErrMalformed)
		case v.Tree < 0 || v.Tree >= len(p.hello.GetTrees()):
			return nil, fmt.Errorf("%w: a volume in tree %d of %d", wire.ErrMalformed, v.Tree, len(p.hello.GetTrees()))
		case v.Path != "" && (!filepath.IsLocal(v.Path) || filepath.Clean(v.Path) != v.Path):
			return nil, fmt.Errorf("%w: a volume at %q of a tree", wire.ErrMalformed, v.Path)
		}
		travels[v.Mount], used[v.Tree] = true, true
	}
	if d := p.identity.Deleted; d != 0 {
		if d < 0 || d >= len(p.hello.GetTrees()) || used[d] {
			return nil, fmt.Errorf("%w: deleted files as tree %d of %d", wire.ErrMalformed, d, len(p.hello.GetTrees()))
		}
		used[d] = true
	}
	if len(used) != len(p.hello.GetTrees()) {
		return nil, fmt.Errorf("%w: of %d trees volumes use %d", wire.ErrMalformed, len(p.hello.GetTrees()), len(used))
	}
	return travels, nil
}

// giveLog is for a container whose streams stay behind with an engine: it gets a monitor here.
func (p *place) giveLog() {
	if p.identity.Foreign && p.identity.LogFile == "" {
		p.identity.LogFile = p.ourLog()
	}
}

// ourLog is the log of a container that brought none. Nobody knows of it who would rotate it.
func (p *place) ourLog() string {
	return filepath.Join(p.host.order.logs(p.hello.GetContainer()), "stdio.log")
}

// ourLogLimit is where it is rotated by its monitor, so that two of these are the most that it takes.
const ourLogLimit = 64 << 20

func (p *place) logLimit() int64 {
	if p.identity.LogFile == p.ourLog() {
		return ourLogLimit
	}
	return 0
}

// makeLog makes the container's log as its owner would want it.
func (p *place) makeLog() error {
	path := p.identity.LogFile
	if path == "" {
		return nil
	}
	if path == p.ourLog() {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("make directory for logs: %w", err)
		}
	}
	var err error
	p.log, err = monitor.OpenNamed(path, os.O_CREATE|os.O_EXCL)
	p.madeLog = err == nil
	if errors.Is(err, os.ErrExist) {
		p.log, err = monitor.OpenNamed(path, 0)
	}
	if err != nil {
		return fmt.Errorf("%w: its log can't be written on this host, make the directory: %w", wire.ErrIncompatible, err)
	}
	return nil
}

// closeLog is for a container that has not come.
func (p *place) closeLog() (err error) {
	if p.log != nil {
		err = p.log.Close()
		p.log = nil
	}
	return err
}

// removeLog removes the log that was made for a container which has not come.
func (p *place) removeLog() error {
	if !p.madeLog {
		return nil
	}
	info, err := os.Lstat(p.identity.LogFile)
	if err == nil && info.Size() == 0 { // with words in it, it stays
		err = os.Remove(p.identity.LogFile)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// unsettled tells whether a crash has left a move of the container here, which the next one ends first. One that ran here and
// lacks memory is not ended by that: it has the id.
func (h *host) unsettled(id string) bool {
	stories, _ := journal.List(h.order.Journals)
	return slices.ContainsFunc(stories, func(s *journal.Story) bool {
		return s.Move.Role == journal.Peer && s.Move.Container == id && s.Move.Root == h.order.Root && !s.Ended() &&
			s.Last() != journal.Owing
	})
}
