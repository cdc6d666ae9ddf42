package criu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// Environment names the program when no flag does.
const Environment = "MIGRATE_CRIU"

// Prefix is where scripts/setup puts a CRIU when the distribution's cannot serve this kernel.
const Prefix = "/opt/migrate/criu/criu"

// Locate is the CRIU to use: the flag's, else MIGRATE_CRIU's, else the one on PATH, else Prefix. A program that is named
// must be there; only the last two are searched. ErrNotFound: there is none.
func Locate(flag string) (string, error) {
	for _, named := range []string{flag, os.Getenv(Environment)} {
		if named == "" {
			continue
		}
		path, err := exec.LookPath(named)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrNotFound, err)
		}
		return path, nil
	}
	for _, name := range []string{"criu", Prefix} {
		path, err := exec.LookPath(name)
		switch {
		case err == nil:
			return path, nil
		case errors.Is(err, exec.ErrDot):
			return "", fmt.Errorf("%w: %w", ErrNotFound, err)
		}
	}
	return "", fmt.Errorf("%w: not on PATH and not at %s; install it, run scripts/setup, or name it with --criu or %s",
		ErrNotFound, Prefix, Environment)
}
