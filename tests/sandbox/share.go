package sandbox

import (
	"fmt"
	"syscall"
)

// Share makes all mounts shared, as systemd does on every machine it boots, where Enter has left them private. podman counts
// on it: for a container with a user namespace conmon, and the cleanup that it starts, run in a mount namespace of their
// own. What the cleanup unmounts there it enters as unmounted; where mounts are private it stays mounted in everybody
// else's, and the next `podman rm` may find its directories busy, with any runtime.
//
// It comes after all that is moved: the kernel moves no mount out of a shared one.
func Share() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	return nil
}
