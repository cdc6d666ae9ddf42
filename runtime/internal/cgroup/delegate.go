package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// delegateFile names the files that the kernel means to be given away with a cgroup (since Linux 4.15): those by which it
// is divided, not the limits, which stay the host's.
const delegateFile = "/sys/kernel/cgroup/delegate"

// delegate gives the cgroup to its owner (cgroup v2: a container that gets a v1 hierarchy could do harm with it).
func (g *Group) delegate() error {
	if g.owner == nil {
		return nil
	}
	names := []string{"cgroup.procs", "cgroup.subtree_control", "cgroup.threads"}
	if text, err := os.ReadFile(delegateFile); err == nil {
		names = strings.Fields(string(text))
	}
	dir := g.manager.Path("")
	for _, name := range append([]string{"."}, names...) {
		err := os.Chown(filepath.Join(dir, name), *g.owner, -1)
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist): // the file of a controller that is off
		case g.rootless && errors.Is(err, fs.ErrPermission): // an id that only the container maps: it stays the user's
		default:
			return fmt.Errorf("hand cgroup to the container: %w", err)
		}
	}
	return nil
}
