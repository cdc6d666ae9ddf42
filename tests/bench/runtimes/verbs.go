package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/livemigrate/migrate/tests/bench/figures"
)

// cost of one command, in ms.
type cost struct {
	name string // of the row
	wall float64
	cpu  float64 // user and system time, also of the children it has waited for
	kb   float64 // instead of both: private memory
}

// verb is one thing to be timed. run returns its costs, by row.
type verb struct {
	name    string
	prepare func(context.Context) error
	run     func(ctx context.Context, t *tool, id string) ([]cost, error)
}

func verbs(s *setting, o *options) []verb {
	one := func(name string, args func(t *tool, id string) []string) func(context.Context, *tool, string) ([]cost, error) {
		return func(ctx context.Context, t *tool, id string) ([]cost, error) {
			c, err := t.time(ctx, args(t, id)...)
			c.name = name
			return []cost{c}, err
		}
	}
	long := func(t *tool) string { return s.id(t, "long") }
	return []verb{
		{"run", nil, one("run", func(_ *tool, id string) []string { return []string{"run", "--bundle", s.short, id} })},
		{"cycle", nil, s.cycle},
		{"exec", func(ctx context.Context) error {
			return s.each(func(t *tool) error { return s.start(ctx, t, "run", long(t)) })
		}, one("exec", func(t *tool, _ string) []string { return []string{"exec", long(t), "true"} })},
		{"state", nil, one("state", func(t *tool, _ string) []string { return []string{"state", long(t)} })},
		{
			"list", func(ctx context.Context) error { return s.fill(ctx, o.listed) },
			one("list", func(*tool, string) []string { return []string{"list"} }),
		},
	}
}

// each calls do for every root: migrate's two turns share theirs.
func (s *setting) each(do func(*tool) error) error {
	for _, t := range s.tools {
		if t.name == again {
			continue
		}
		if err := do(t); err != nil {
			return err
		}
	}
	return nil
}

// fill makes containers to be listed, so that with the one that runs there are enough.
func (s *setting) fill(ctx context.Context, listed int) error {
	return s.each(func(t *tool) error {
		for n := range listed - 1 {
			if err := s.start(ctx, t, "create", s.id(t, fmt.Sprint("listed-", n))); err != nil {
				return err
			}
		}
		return nil
	})
}

// cycle is a container's whole life, as engines have it. In the middle of it nothing else runs the tool's program, so all
// of the waiting init's memory that is not shared is its own.
func (s *setting) cycle(ctx context.Context, t *tool, id string) ([]cost, error) {
	pidFile := filepath.Join(s.dir, "pid")
	s.made = append(s.made, container{t, id})
	create, err := t.time(ctx, "create", "--bundle", s.short, "--pid-file", pidFile, id)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, err
	}
	pid := strings.TrimSpace(string(text))
	private, err := privateMemory(pid)
	if err != nil {
		return nil, err
	}
	start, err := t.time(ctx, "start", id)
	if err != nil {
		return nil, err
	}
	if err := ended(ctx, pid); err != nil {
		return nil, err
	}
	remove, err := t.time(ctx, "delete", id)
	create.name, start.name, remove.name = "create", "start", "delete"
	whole := cost{name: cycleRow, wall: create.wall + start.wall + remove.wall, cpu: create.cpu + start.cpu + remove.cpu}
	return []cost{create, start, remove, whole, {name: memoryRow, kb: private}}, err
}

// ended waits for the end of a process that is no child of ours.
func ended(ctx context.Context, pid string) error {
	for ctx.Err() == nil {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if errors.Is(err, fs.ErrNotExist) || bytes.Contains(stat, []byte(") Z ")) {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}

// privateMemory is what the process alone holds, in KB: what would come free if it ended.
func privateMemory(pid string) (kb float64, err error) {
	text, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if name, rest, _ := strings.Cut(line, ":"); name == "Private_Clean" || name == "Private_Dirty" {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			if err != nil {
				return 0, fmt.Errorf("read smaps_rollup of process %s: %w", pid, err)
			}
			kb += float64(n)
		}
	}
	return kb, nil
}

// time runs the tool. Its streams are files, never pipes, which a container would keep open.
func (t *tool) time(ctx context.Context, args ...string) (cost, error) {
	said, err := os.CreateTemp("", "bench-stderr-")
	if err != nil {
		return cost{}, err
	}
	defer said.Close()
	if err := os.Remove(said.Name()); err != nil {
		return cost{}, err
	}
	cmd := exec.CommandContext(ctx, t.path, append([]string{"--root", t.root}, args...)...)
	cmd.Stderr = said
	began := time.Now()
	err = cmd.Run()
	took := time.Since(began)
	if err != nil {
		words := make([]byte, 4096)
		n, _ := said.ReadAt(words, 0)
		return cost{}, fmt.Errorf("%s %s: %w: %s", t.name, args[0], err, bytes.TrimSpace(words[:n]))
	}
	return cost{wall: figures.MS(took), cpu: figures.MS(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime())}, nil
}
