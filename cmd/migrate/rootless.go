package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/sys/userns"
)

// defaultRoot is /run/migrate for real root, and a directory of the user's for everybody else who has one.
func defaultRoot() (string, error) {
	runtimeDir := os.Getenv("XDG_RUNTIME_DIR")
	if runtimeDir == "" || !ownsRuntimeDir() {
		return "/run/migrate", nil
	}
	root := filepath.Join(runtimeDir, "migrate")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", fmt.Errorf("the path in $XDG_RUNTIME_DIR must be writable by the user: %w", err)
	}
	// The sticky bit keeps it from being tidied away when it gets old (XDG base directory specification).
	if err := os.Chmod(root, 0o700|os.ModeSticky); err != nil {
		return "", fmt.Errorf("check the permissions of the path in $XDG_RUNTIME_DIR: %w", err)
	}
	return root, nil
}

// ownsRuntimeDir: $XDG_RUNTIME_DIR of real root, or of "root" in a user namespace of root's, is left alone, as runc does.
func ownsRuntimeDir() bool {
	if os.Geteuid() != 0 {
		return true
	}
	return userns.RunningInUserNS() && os.Getenv("USER") != "root"
}
