package process

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
)

// LeaveCgroups moves this process to the root of every hierarchy where it may be: the end of an ssh session, or a service's
// restart, may kill the cgroup that it was started in, and the limits there were not meant for what it does. The error says
// where it stays.
func LeaveCgroups() error {
	const mount = "/sys/fs/cgroup"
	pid := []byte(strconv.Itoa(os.Getpid()))
	entries, err := os.ReadDir(mount)
	if err != nil {
		return err
	}
	roots := []string{mount} // the unified hierarchy
	for _, e := range entries {
		if e.IsDir() {
			roots = append(roots, filepath.Join(mount, e.Name())) // of cgroup v1
		}
	}
	var failed error
	for _, root := range roots {
		procs := filepath.Join(root, "cgroup.procs")
		if _, err := os.Stat(procs); err != nil || root != mount && !isHierarchy(root) {
			continue
		}
		failed = errors.Join(failed, os.WriteFile(procs, pid, 0))
	}
	return failed
}

// isHierarchy tells a mounted hierarchy from a cgroup of the unified one: only a hierarchy's root has no parent of its kind.
func isHierarchy(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "..", "cgroup.procs"))
	return err != nil
}
