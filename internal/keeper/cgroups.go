package keeper

import (
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
)

// leaveCgroups moves this process to the root of every hierarchy where it may be: the end of an ssh session, or a service's
// restart, may kill the cgroup that push or serve ran in, and the limits there were not meant for a move.
func leaveCgroups(log *slog.Logger) {
	const mount = "/sys/fs/cgroup"
	pid := []byte(strconv.Itoa(os.Getpid()))
	entries, err := os.ReadDir(mount)
	if err != nil {
		log.Debug("leave cgroups", "error", err)
		return
	}
	roots := []string{mount} // the unified hierarchy
	for _, e := range entries {
		if e.IsDir() {
			roots = append(roots, filepath.Join(mount, e.Name())) // of cgroup v1
		}
	}
	for _, root := range roots {
		procs := filepath.Join(root, "cgroup.procs")
		if _, err := os.Stat(procs); err != nil || root != mount && !isHierarchy(root) {
			continue
		}
		if err := os.WriteFile(procs, pid, 0); err != nil {
			log.Debug("leave cgroup", "hierarchy", root, "error", err)
		}
	}
}

// isHierarchy tells a mounted hierarchy from a cgroup of the unified one: only a hierarchy's root has no parent of its kind.
func isHierarchy(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "..", "cgroup.procs"))
	return err != nil
}
