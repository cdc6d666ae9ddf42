//go:build failpoint

package failpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// directory is the environment variable that turns points on.
const directory = "MIGRATE_FAILPOINTS"

// Hit does what is asked for at a point.
func Hit(ctx context.Context, p Point) error {
	dir := os.Getenv(directory)
	if dir == "" {
		return nil
	}
	hit := filepath.Join(dir, string(p)+".hit")
	if err := os.Rename(filepath.Join(dir, string(p)), hit); err != nil {
		return nil //nolint:nilerr // nobody asks, or another process was first
	}
	text, err := os.ReadFile(hit)
	if errors.Is(err, os.ErrNotExist) {
		return nil // released at once
	}
	if err != nil {
		return fmt.Errorf("failpoint %s: %w", p, err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	action, argument, _ := strings.Cut(line, " ")
	switch action {
	case "stop":
		wait(ctx, hit)
		return nil
	case "delay":
		d, err := time.ParseDuration(argument)
		time.Sleep(d)
		return err
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "error":
		return errors.New(argument)
	}
	return fmt.Errorf("failpoint %s: unknown action %q", p, action)
}

// wait returns when the file is gone, or the step is called off.
func wait(ctx context.Context, file string) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if _, err := os.Lstat(file); err != nil {
			return
		}
	}
}

// Now is the time, put off by what the file clock-HOSTNAME in the directory says: the clock of a host that was set.
func Now() time.Time {
	now := time.Now()
	name, err := os.Hostname()
	if err != nil || os.Getenv(directory) == "" {
		return now
	}
	text, err := os.ReadFile(filepath.Join(os.Getenv(directory), "clock-"+name))
	if err != nil {
		return now
	}
	d, _ := time.ParseDuration(strings.TrimSpace(string(text)))
	return now.Add(d)
}
