package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Cover lays an overlay on a directory: what is written there from now on is gone with the mount namespace. What is
// written is kept on /run, which has to be a tmpfs by then: the kernel takes no overlay, which /tmp of a container is on,
// for the layer that is written to.
func Cover(target string) error {
	dir, err := os.MkdirTemp("/run", "cover-")
	if err != nil {
		return err
	}
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", target, upper, work)
	if err := syscall.Mount("overlay", target, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay on %s: %w", target, err)
	}
	return nil
}
