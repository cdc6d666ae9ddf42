package podman

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// findLeftovers is what a machine that runs containers day by day would drown in: processes, mounts, network namespaces,
// cgroups and states of containers that were removed.
func findLeftovers() error {
	var err error
	for range 100 { // what podman starts to clean up ends a little later
		if err = errors.Join(leftProcesses(), leftMounts(), leftFiles(), leftCgroups()); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("left behind:\n%w", err)
}

// leftProcesses looks at everything in the pid namespace but its init and this program.
func leftProcesses() error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	var left error
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		if line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")); err == nil {
			left = errors.Join(left, fmt.Errorf("process %d: %s", pid, strings.ReplaceAll(string(line), "\x00", " ")))
		}
	}
	return left
}

func leftMounts() error {
	points, err := mountPoints()
	if err != nil {
		return err
	}
	// podman mounts these on themselves, for as long as the store and the machine are there.
	podmans := []string{filepath.Join(storeDir(), "root", "overlay"), "/run/netns"}
	var left error
	for _, point := range points {
		ours := strings.HasPrefix(point, storeDir()+"/") || strings.HasPrefix(point, "/run/")
		if ours && !slices.Contains(podmans, point) {
			left = errors.Join(left, fmt.Errorf("mount at %s", point))
		}
	}
	return left
}

func leftFiles() error {
	var left error
	for _, pattern := range []string{"/run/netns/*", "/run/migrate/*", "/run/runc/*", "/run/user/*/migrate/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range paths {
			left = errors.Join(left, fmt.Errorf("file %s", path))
		}
	}
	return left
}

// leftCgroups looks for those of containers. A pod's own in hierarchies without a controller podman 4.3 leaves, whatever
// its runtime.
func leftCgroups() error {
	return eachCgroup(cgroupParent(), func(dir string) error {
		var left error
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "libpod-") {
				left = errors.Join(left, fmt.Errorf("cgroup %s", path))
			}
			return err
		})
		return errors.Join(err, left)
	})
}
