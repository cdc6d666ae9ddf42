package sandbox

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// Build makes the program that `make build` makes, with its flags, and returns its path: a dynamic one, or one with
// symbols, starts otherwise than what users run.
func Build(dir string) (string, error) {
	path := filepath.Join(dir, "migrate")
	cmd := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-tags", "netgo,osusergo",
		"-ldflags", "-s -w -extldflags -static", "-o", path, "github.com/livemigrate/migrate/cmd/migrate")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build migrate: %w: %s", err, text)
	}
	return path, nil
}
