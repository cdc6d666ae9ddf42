package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// RemoveYards takes away the cgroup hierarchies that a CRIU which was killed while it restored has left mounted in its work
// directory (".criu.cgyard.XXXXXX", cgroup.c). No other CRIU may be at work there.
func RemoveYards(workDir string) error {
	yards, err := filepath.Glob(filepath.Join(workDir, ".criu.cgyard.*"))
	for _, yard := range yards {
		// Detached, the hierarchies in it go along. It is no mount yet, or no longer, when CRIU was killed beside that.
		if e := syscall.Unmount(yard, syscall.MNT_DETACH); e != nil && !errors.Is(e, syscall.EINVAL) && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", yard, e))
		}
		if e := os.Remove(yard); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove what criu has left: %w", e))
		}
	}
	return err
}
