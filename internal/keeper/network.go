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
	"github.com/livemigrate/migrate/runtime"
)

// network is the network namespace of a container that its config names by path, at the peer. What was made for it is written
// down before: whoever ends the move of a keeper that is gone finds it.
type network struct {
	Call   *netspace.Call `json:"call"`
	Made   bool           `json:"made"`   // it was not there before
	Hooked bool           `json:"hooked"` // the hook was called with "add", or is about to be

	places Places
	mark   string // the file that says so
	space  *netspace.Space
	log    *slog.Logger
}

// networkMark is where the network of a move is written down.
func (p Places) networkMark(move string) string { return filepath.Join(p.run(), move+networkSuffix) }

const networkSuffix = ".network"

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
	p.network = n
	if n.space, err = netspace.Make(record); err != nil {
		return nil, err
	}
	if err := n.hook(ctx, netspace.Add); err != nil {
		return nil, err
	}
	left, err := n.space.Furnish()
	if err != nil {
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

func (n *network) write() error {
	text, err := json.Marshal(n)
	if err == nil {
		err = errors.Join(n.places.make(), os.WriteFile(n.mark, text, 0o600))
	}
	if err != nil {
		return fmt.Errorf("write down the network: %w", err)
	}
	return nil
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
	if err != nil {
		return nil, fmt.Errorf("read what was written down of the network: %w", err)
	}
	n.space = &netspace.Space{}
	n.space.NS, err = netspace.Open(n.Call.Network.Path)
	return n, err
}

func (n *network) hook(ctx context.Context, verb netspace.Verb) error {
	if !n.Hooked {
		return nil
	}
	return (&netspace.Hook{Program: n.places.NetworkHook}).Run(ctx, verb, n.Call)
}

// open connects the container, which is this host's.
func (n *network) open(ctx context.Context, stalled []link.Stalled) error {
	if n.space.NS == nil {
		return fmt.Errorf("open network namespace: %w", os.ErrNotExist)
	}
	err := errors.Join(netspace.Join(n.space.NS), n.hook(ctx, netspace.Plug))
	for _, l := range n.Call.Network.Ethernet() {
		if e := link.Announce(ctx, n.space.NS, l.Name, l.Prefixes()); e != nil {
			n.log.Warn("the network was not told of the new place", "error", e)
		}
	}
	if e := link.Wake(ctx, n.space.NS, stalled); e != nil {
		n.log.Warn("clients were not told to try again", "error", e)
	}
	return err
}

// done forgets what was written down, of a container that runs here.
func (n *network) done() error {
	err := n.space.Close()
	if e := os.Remove(n.mark); e != nil && !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

// discard undoes what was made. A namespace that was there before stays, and cut off: its addresses are the source's.
func (n *network) discard(ctx context.Context) error {
	err := n.hook(ctx, netspace.TakeAway)
	if n.Made {
		err = errors.Join(err, netspace.Remove(n.Call.Network))
	}
	if n.space != nil {
		err = errors.Join(err, n.space.Close())
	}
	if err != nil {
		return err // whoever comes next tries again
	}
	return os.Remove(n.mark)
}

// leaveNetwork is the end of a namespace by path at the source: it is cut off, and stays its engine's. One that was made for the
// container has gone with it.
func (c *container) leaveNetwork(ctx context.Context, state *runtime.State) error {
	path := state.Plan.NamespacePath(specs.NetworkNamespace)
	if path == "" || c.order.NetworkHook == "" {
		return nil
	}
	record := &netspace.Record{Path: path}
	ns, err := netspace.Open(path)
	if ns != nil {
		record, _, err = netspace.Read(ns, path)
		err = errors.Join(err, ns.Close())
	}
	if err != nil {
		return err
	}
	call := networkCall(c.ID(), state.Plan.Bundle, specs.StateStopped, state.Plan.Spec, record)
	return (&netspace.Hook{Program: c.order.NetworkHook}).Run(ctx, netspace.TakeAway, call)
}
