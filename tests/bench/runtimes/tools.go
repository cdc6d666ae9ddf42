package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Where a runc that was built stays, so that the next bench is quick.
const (
	cacheDir   = "/var/cache/migrate"
	runcModule = "github.com/opencontainers/runc"
)

// tool is a runtime that takes part.
type tool struct {
	name string
	path string
	root string // of its state
}

// Names that the report and the verdict look for; runcs are named by their versions.
const (
	ours  = "migrate"
	again = "migrate again"
)

// participants are migrate, itself again, Debian's runc and the newest. State goes below dir.
func participants(ctx context.Context, migrate, dir string) ([]*tool, error) {
	debian, err := exec.LookPath("runc")
	if err != nil {
		return nil, err
	}
	newest, err := newestRunc(ctx)
	if err != nil {
		return nil, err
	}
	// Installed, as the runcs are: the linker leaves its file in the page cache in pieces so large that touching one byte
	// maps most of the program.
	installed := filepath.Join(cacheDir, "migrate-bench")
	if out, err := exec.CommandContext(ctx, "install", migrate, installed).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("install the program under test (make build): %w: %s", err, out)
	}
	migrate = installed
	tools := []*tool{
		{name: ours, path: migrate, root: filepath.Join(dir, "migrate")},
		{name: again, path: migrate, root: filepath.Join(dir, "migrate")},
	}
	for i, path := range []string{debian, newest} {
		version, err := runcVersion(ctx, path)
		if err != nil {
			return nil, err
		}
		tools = append(tools, &tool{name: "runc " + version, path: path, root: filepath.Join(dir, fmt.Sprint("runc", i))})
	}
	return tools, nil
}

func runcVersion(ctx context.Context, path string) (string, error) {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	first, _, _ := strings.Cut(string(out), "\n")
	version, ok := strings.CutPrefix(first, "runc version ")
	if err == nil && !ok {
		err = fmt.Errorf("it says %q", first)
	}
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", path, err)
	}
	version, _, _ = strings.Cut(version, "+") // Debian adds what it was built from
	return version, nil
}

// newestRunc builds the newest release from its Go module, unless that was done before.
func newestRunc(ctx context.Context) (path string, err error) {
	module, err := downloadRunc(ctx)
	if err != nil {
		return "", err
	}
	version := strings.TrimPrefix(module.Version, "v")
	path = filepath.Join(cacheDir, "runc-"+version)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	fmt.Fprintf(os.Stderr, "-- build runc %s, once\n", version)
	dir, err := os.MkdirTemp("", "bench-runc-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// As the main module of a build it is pinned to the versions that it was released with.
	if err := os.CopyFS(dir, os.DirFS(module.Dir)); err != nil {
		return "", fmt.Errorf("copy runc's source: %w", err)
	}
	// Its own Makefile's flags, but for libpathrs, which Debian 12 has not got.
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "seccomp urfave_cli_no_docs",
		"-ldflags", "-X main.version="+version, "-o", "runc.new", ".")
	build.Dir, build.Env = dir, append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build runc %s: %w: %s", version, err, out)
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, "install", filepath.Join(dir, "runc.new"), path).CombinedOutput(); err != nil {
		return "", fmt.Errorf("keep runc %s: %w: %s", version, err, out)
	}
	return path, nil
}

type module struct{ Version, Dir, Error string }

// downloadRunc is outside of any module, so that ours asks for nothing new.
func downloadRunc(ctx context.Context) (*module, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", runcModule+"@latest")
	cmd.Dir, cmd.Env = os.TempDir(), append(os.Environ(), "GOFLAGS=", "GO111MODULE=on")
	out, err := cmd.Output()
	m := &module{}
	if jsonErr := json.Unmarshal(out, m); err == nil {
		err = jsonErr
	}
	if err != nil || m.Error != "" {
		return nil, fmt.Errorf("download the newest runc: %w", errors.Join(err, errors.New(m.Error)))
	}
	return m, nil
}
