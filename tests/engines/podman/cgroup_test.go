package podman

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const hierarchies = "/sys/fs/cgroup"

// hideUnmountedControllers gives /sys/fs/cgroup a file for every controller of version 1 that the kernel has and nobody
// mounted. podman 4.3 makes a directory for it otherwise, on the tmpfs, writes pids to a file there, and then can't remove
// it with its pod: any runtime fails so. What is no directory it takes for a symbolic link, and leaves alone.
func hideUnmountedControllers(dir string) error {
	known, err := controllers()
	if err != nil || len(known) == 0 {
		return err
	}
	fresh := filepath.Join(dir, "cgroup")
	if err := os.Mkdir(fresh, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", fresh, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", fresh, err)
	}
	mounted, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, name := range mounted {
		target := filepath.Join(fresh, name)
		if err := os.Mkdir(target, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(filepath.Join(hierarchies, name), target, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind the hierarchy %s: %w", name, err)
		}
	}
	for _, name := range known {
		if !slices.Contains(mounted, name) {
			if err := os.WriteFile(filepath.Join(fresh, name), nil, 0o444); err != nil {
				return err
			}
		}
	}
	if err := syscall.Unmount(hierarchies, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", hierarchies, err)
	}
	if err := syscall.Mount(fresh, hierarchies, "", syscall.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move mount to %s: %w", hierarchies, err)
	}
	return nil
}

// controllers are those of version 1; none on a machine that has version 2 alone.
func controllers() (names []string, err error) {
	var root syscall.Statfs_t
	if err := syscall.Statfs(hierarchies, &root); err != nil {
		return nil, err
	}
	const cgroup2 = 0x63677270
	if root.Type == cgroup2 {
		return nil, nil
	}
	text, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if name, _, _ := strings.Cut(line, "\t"); !strings.HasPrefix(name, "#") {
			names = append(names, name)
		}
	}
	return names, nil
}

// cgroupMounts are the names in /sys/fs/cgroup on which a hierarchy is mounted.
func cgroupMounts() (names []string, err error) {
	mounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	for _, point := range mounts {
		if name, ok := strings.CutPrefix(point, hierarchies+"/"); ok && !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	return names, nil
}

func mountPoints() (points []string, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		points = append(points, strings.Fields(line)[4])
	}
	return points, nil
}

// eachCgroup calls visit with the directories that podman was told to put its cgroups in, in every hierarchy.
func eachCgroup(name string, visit func(dir string) error) error {
	dirs, err := filepath.Glob(filepath.Join(hierarchies, "*", name))
	if err != nil {
		return err
	}
	var all error
	for _, dir := range append(dirs, filepath.Join(hierarchies, name)) {
		if _, err := os.Stat(dir); err == nil {
			all = errors.Join(all, visit(dir))
		}
	}
	return all
}

// removeCgroups removes the parents of all cgroups, which podman leaves for its next container.
func removeCgroups(name string) error {
	return eachCgroup(name, func(dir string) error {
		var dirs []string
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		for _, path := range slices.Backward(dirs) {
			err = errors.Join(err, os.Remove(path))
		}
		return err
	})
}
