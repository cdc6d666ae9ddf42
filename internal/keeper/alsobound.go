package keeper

import (
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/runtime"
)

// judgeOthers finds the directories that would be carried while another container of this host goes on with them: from the move on
// each would have its own, without a word to either.
func (c *container) judgeOthers() preflight.Findings {
	if len(c.trees) < 2 {
		return nil
	}
	rt, err := runtime.Open(&runtime.Options{Root: c.order.Root, SystemdCgroup: c.order.SystemdCgroup, Log: c.log})
	if err != nil {
		c.log.Warn("other containers' mounts are not known", "error", err)
		return nil
	}
	all, err := rt.List()
	if err != nil {
		c.log.Warn("other containers' mounts are not known", "error", err)
		return nil
	}
	var f preflight.Findings
	for _, other := range all {
		if status, err := other.Status(); other.ID() == c.ID() || err != nil || status == runtime.Stopped {
			continue
		}
		plan := other.Plan()
		for _, m := range plan.Spec.Mounts {
			if m.Source = absolute(m.Source, plan.Bundle); preflight.IsBind(m) {
				f = append(f, c.judgeOther(other.ID(), m)...)
			}
		}
	}
	return f
}

// judgeOther compares what another container has mounted. A single file is no place that two programs work in; who has mounted a
// directory around this one, as those do that watch a host, need not mean it; and what both only read is the same on either host.
func (c *container) judgeOther(id string, m specs.Mount) preflight.Findings {
	theirs, readOnly := m.Source, (&bind{Mount: m}).readOnly()
	if path, err := filepath.EvalSymlinks(theirs); err == nil {
		theirs = path
	}
	for _, b := range c.binds {
		within := b.where != nil && isBeneath(theirs, b.path)
		if b.where == nil || !b.stat.IsDir() || !within && !isBeneath(b.path, theirs) {
			continue
		}
		const cure = "move both with --volumes shared, from storage that both hosts have, or stop the other one"
		switch {
		case readOnly && b.readOnly():
			return preflight.Misfit(preflight.Note, preflight.BindMount, "",
				"%s, bind-mounted at %s, is copied; container %s has it mounted, too, and both only read it", b.path, b.Destination, id)
		case readOnly || !within:
			return preflight.Misfit(preflight.Warning, preflight.BindMount, cure,
				"%s, bind-mounted at %s, is copied; container %s, which has %s mounted, no longer sees what is written to it", b.path, b.Destination, id, theirs)
		}
		return preflight.Misfit(preflight.Blocker, preflight.BindMount, cure,
			"%s, bind-mounted at %s, would be copied, and container %s writes to %s here: each would have its own from then on",
			b.path, b.Destination, id, theirs)
	}
	return nil
}
