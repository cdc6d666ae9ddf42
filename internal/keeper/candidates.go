package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/runtime"
)

// Candidate is a container of this host, for whoever moves several.
type Candidate struct {
	ID     string
	Status string // OCI's word
	Err    error  // why it can't be moved now; nil: it runs
	Memory uint64 // bytes, as far as its cgroup counts them
}

// Candidates are the containers of these names; without any, all of the state root. The error is that of a name that no
// container has.
func (o *Order) Candidates(ids []string, log *slog.Logger) ([]Candidate, error) {
	rt, err := runtime.Open(&runtime.Options{Root: o.Root, SystemdCgroup: o.SystemdCgroup, Log: log})
	if err != nil {
		return nil, err
	}
	var containers []*runtime.Container
	if len(ids) == 0 {
		containers, err = rt.List()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil // none was ever made
		}
	}
	for _, id := range ids {
		c, missing := rt.Load(id)
		if missing != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", id, missing))
			continue
		}
		containers = append(containers, c)
	}
	if err != nil {
		return nil, err
	}
	var all []Candidate
	for _, c := range containers {
		candidate := Candidate{ID: c.ID(), Err: checkRunning(c)}
		if status, err := c.Status(); err == nil {
			candidate.Status = status.String()
		}
		if used, err := preflight.UsageOf(c.State().CgroupPaths); err == nil {
			candidate.Memory = used.Anonymous + used.Shared
		}
		all = append(all, candidate)
	}
	return all, nil
}
