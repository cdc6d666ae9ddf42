package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/internal/netspace"
	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/runtime"
)

// network is the network namespace of a container that its config names by path, at the peer. What was made for it is written
// down before: whoever ends the move of a keeper that is gone finds it.
type network struct {
	Call   *netspace.Call `json:"call"`
	Made   bool           `json:"made"`            // it was not there before
	Inode  uint64         `json:"inode,omitempty"` // of the namespace that was made, once it is cut off; 0 before that
	Hooked bool           `json:"hooked"`          // the hook was called with "add", or is about to be

	places Places
	mark   string // the file that says so
	space  *netspace.Space
	log    *slog.Logger
}

// networkMark is where the network of a move is written down.
func (p Places) networkMark(move string) string { return filepath.Join(p.run(), move+networkSuffix) }

const (
	networkSuffix = ".network"
	newSuffix     = ".new"
)

// networkCall is what a hook is told of a container.
func networkCall(id, bundle string, status specs.ContainerState, spec *specs.Spec, r *netspace.Record) *netspace.Call {
	return &netspace.Call{
		State:   specs.State{Version: specs.Version, ID: id, Status: status, Bundle: bundle, Annotations: spec.Annotations},
		Network: r,
	}
}

// makeNetwork makes the network namespace of a container that has one by path; nothing gets in or out yet.
// What could not be told before is in the findings.
func (p *place) makeNetwork(ctx context.Context) (preflight.Findings, error) {
	record := p.identity.Namespace
	if record == nil || record.Path == "" {
		return nil, nil
	}
	places := p.host.order.Places
	n := &network{
		Call:   networkCall(p.hello.GetContainer(), p.bundle, specs.StateCreating, p.spec, record),
		Hooked: places.NetworkHook != "", places: places, mark: places.networkMark(p.hello.GetMove()), log: p.host.log,
	}
	// Since the offer hours may have passed, and an engine may have put another container's namespace there: that is not cut off.
	if err := preflight.Namespace(record, n.Hooked).Refusal(); err != nil {
		return nil, err
	}
	there, err := netspace.Open(record.Path)
	if err != nil {
		return nil, err
	}
	if n.Made = there == nil; !n.Made {
		if err := there.Close(); err != nil {
			return nil, err
		}
	}
	if err := n.write(); err != nil {
		return nil, err
	}
	if n.space, err = netspace.Make(record); err != nil {
		return nil, errors.Join(err, n.forget()) // nothing is left, and no hook was called
	}
	p.network = n
	if n.Made != n.space.Made { // somebody else was quicker, and it is theirs
		n.Made = n.space.Made
		if err := n.write(); err != nil {
			return nil, err
		}
	}
	if err := n.hook(ctx, netspace.Add); err != nil {
		return nil, err
	}
	left, err := n.space.Furnish()
	if err != nil {
		return nil, err
	}
	if n.Inode, err = netns.Inode(n.space.NS); err != nil {
		return nil, err
	}
	if err := n.write(); err != nil {
		return nil, err
	}
	var f preflight.Findings
	for _, what := range left {
		f = append(f, preflight.Misfit(preflight.Warning, preflight.NetworkNamespace, "", "the network namespace %s is made without %s", record.Path, what)...)
	}
	if p.lost, err = record.Missing(n.space.NS); err != nil || len(p.lost) == 0 {
		return f, err
	}
	for _, address := range p.lost {
		if slices.Contains(p.hello.GetNeeds().GetAddresses(), address.String()) {
			return nil, fmt.Errorf("the hook gives the container other addresses, and it has sockets bound to %s: bind them to all addresses", address)
		}
	}
	return append(f, preflight.Misfit(preflight.Warning, preflight.Connections, "have the hook give it the address that it had",
		"the container's address %s does not come along: its TCP connections from there are closed, those over the loopback are not", p.lost[0])...), nil
}

// completeNetwork gives the namespace of a link of ours what the container's programs had set in it.
func (p *place) completeNetwork() (f preflight.Findings, err error) {
	record, ns := p.identity.Namespace, p.prepared.NetNS()
	if record == nil || record.Path != "" || ns == nil {
		return nil, nil
	}
	left, err := netspace.Complete(ns, record)
	for _, what := range left {
		f = append(f, preflight.Misfit(preflight.Warning, preflight.NetworkNamespace, "", "the network namespace is made without %s", what)...)
	}
	return f, err
}

// write is all or nothing: who reads it ends a move by it.
func (n *network) write() error {
	text, err := json.Marshal(n)
	if err == nil {
		err = n.places.make()
	}
	if err == nil {
		err = os.WriteFile(n.mark+newSuffix, text, 0o600)
	}
	if err == nil {
		err = os.Rename(n.mark+newSuffix, n.mark)
	}
	if err != nil {
		return fmt.Errorf("write down the network: %w", errors.Join(err, ignoreMissing(os.Remove(n.mark+newSuffix))))
	}
	return nil
}

func (n *network) forget() error { return ignoreMissing(os.Remove(n.mark)) }

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// loadNetwork is that of a move whose keeper is gone; nil when it had none, or was through with it.
func loadNetwork(places Places, move string, log *slog.Logger) (*network, error) {
	n := &network{places: places, mark: places.networkMark(move), log: log}
	text, err := os.ReadFile(n.mark)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(text, n)
	}
	if err == nil && (n.Call == nil || n.Call.Network == nil) {
		err = errors.New("it names no network")
	}
	if err != nil {
		return nil, fmt.Errorf("read what was written down of the network: %w", err)
	}
	return n, nil
}

// discardNetwork undoes what a keeper that is gone has made for a move. What can't be read was not written by a keeper, which
// writes before it makes anything: it stays, and is in nobody's way.
func discardNetwork(ctx context.Context, places Places, move string, log *slog.Logger) error {
	n, err := loadNetwork(places, move, log)
	if err != nil {
		log.Warn("a network namespace may be left", "error", err)
	}
	if n == nil {
		return nil
	}
	return n.discard(ctx)
}

func (n *network) hook(ctx context.Context, verb netspace.Verb) error {
	if !n.Hooked {
		return nil
	}
	if n.places.NetworkHook == "" { // whoever ends the move was started otherwise than its keeper
		return fmt.Errorf("no --network-hook is set here: the one that was called for %s is not called with %q", n.Call.ID, verb)
	}
	return (&netspace.Hook{Program: n.places.NetworkHook}).Run(ctx, verb, n.Call)
}

// open connects the container, which is this host's. With errHook it is connected but for what the hook does.
func (n *network) open(ctx context.Context, stalled []link.Stalled) error {
	if n.space == nil { // it was made by a keeper that is gone
		ns, err := netspace.Open(n.Call.Network.Path)
		if err != nil {
			return err
		}
		n.space = &netspace.Space{NS: ns}
	}
	if n.space.NS == nil {
		return fmt.Errorf("open network namespace %s: %w", n.Call.Network.Path, os.ErrNotExist)
	}
	if err := netspace.Join(n.space.NS); err != nil {
		return err
	}
	err := n.hook(ctx, netspace.Plug)
	if err != nil {
		err = fmt.Errorf("%w: %w", errHook, err)
	}
	n.announce(ctx)
	if e := link.Wake(ctx, n.space.NS, stalled); e != nil {
		n.log.Warn("clients were not told to try again", "error", e)
	}
	return err
}

// errHook: it is no longer cut off, and what its interfaces are connected to by themselves reaches it.
var errHook = errors.New("the namespace is connected, but the network hook failed")

// cure is for a user after open has failed.
func (n *network) cure(err error) string {
	if errors.Is(err, errHook) {
		return "do there what the hook's \"open\" does"
	}
	return fmt.Sprintf("\"nft delete table netdev migrate-cut\" in %s there, and what the hook's \"open\" does", n.Call.Network.Path)
}

// announce tells of the addresses that it has now: those of the record may be another's here, where the hook gave it others.
func (n *network) announce(ctx context.Context) {
	links, err := netspace.Ethernet(n.space.NS)
	for _, l := range links {
		err = errors.Join(err, link.Announce(ctx, n.space.NS, l.Name, l.Prefixes()))
	}
	if err != nil {
		n.log.Warn("the network was not told of the new place", "error", err)
	}
}

// done forgets what was written down, of a container that runs here.
func (n *network) done() error { return errors.Join(n.close(), n.forget()) }

func (n *network) close() error {
	if n.space == nil {
		return nil
	}
	return n.space.Close()
}

// discard undoes what was made. A namespace that was there before stays, and cut off: its addresses are the source's. A hook
// that fails is no reason to leave a move without an end: no process is its.
func (n *network) discard(ctx context.Context) error {
	if err := n.hook(ctx, netspace.TakeAway); err != nil {
		n.log.Warn("the network hook may have left something", "container", n.Call.ID, "error", err)
	}
	err := n.remove()
	if err := errors.Join(err, n.close()); err != nil {
		return err // whoever comes next tries again
	}
	return n.forget()
}

// remove takes away what was made, if it is that still: nobody may have ended the move until an engine has made another at the path.
func (n *network) remove() error {
	if !n.Made {
		return nil
	}
	ns, err := netspace.Open(n.Call.Network.Path)
	if err != nil && !errors.Is(err, netspace.ErrOther) {
		return err
	}
	if ns == nil { // what is left of it on the host
		return netspace.Remove(n.Call.Network)
	}
	defer ns.Close()
	if n.Inode == 0 { // its keeper was killed while it made it
		return netspace.Remove(n.Call.Network)
	}
	inode, err := netns.Inode(ns)
	if err != nil {
		return err
	}
	cut, err := netspace.IsCut(ns) // inodes are given anew, and what was made is cut off as long as its container has not come
	if err != nil {
		return err
	}
	if inode != n.Inode || !cut {
		n.log.Warn("the network namespace that was made is gone, and another's is at its path", "path", n.Call.Network.Path)
		return nil
	}
	return netspace.Remove(n.Call.Network)
}

// leaveNetwork is the end of a namespace by path at the source: it is cut off, and stays its engine's. One that was made for the
// container has gone with it. That of the host is no business of a hook's.
func (c *container) leaveNetwork(ctx context.Context, state *runtime.State) error {
	path := state.Plan.NamespacePath(specs.NetworkNamespace)
	if path == "" || c.order.NetworkHook == "" {
		return nil
	}
	record := &netspace.Record{Path: path}
	ns, err := netspace.Open(path)
	hosts := false
	if ns != nil {
		if hosts, err = netspace.IsHosts(ns); err == nil && !hosts {
			record, _, err = netspace.Read(ns, path)
		}
		err = errors.Join(err, ns.Close())
	}
	if hosts || err != nil {
		return err
	}
	call := networkCall(c.ID(), state.Plan.Bundle, specs.StateStopped, state.Plan.Spec, record)
	return (&netspace.Hook{Program: c.order.NetworkHook}).Run(ctx, netspace.TakeAway, call)
}
