package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// count is one line of the table: what there is of a kind, by name.
type count struct {
	kind  string
	names []string
}

// patience is how long what has ended may take to go: a reaper has its own pace, and the kernel removes cgroups later.
const patience = 5 * time.Second

// settled takes the census, again while there is more than before.
func (s *soaked) settled(ctx context.Context, before []count) ([]count, error) {
	for deadline := time.Now().Add(patience); ; {
		now, err := s.census()
		if err != nil || before == nil || len(grown(before, now)) == 0 || time.Now().After(deadline) {
			return now, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *soaked) census() ([]count, error) {
	var counts []count
	for _, part := range []struct {
		kind string
		list func() ([]string, error)
	}{
		{"processes", s.processes},
		{"mounts", mounts},
		{"cgroups", s.cgroups},
		{"open descriptors", descriptors},
		{"files of the state", func() ([]string, error) { return named(s.root, "") }},
		{"files in /run", func() ([]string, error) { return named("/run", s.name) }},
		{"temporary files", func() ([]string, error) { return named(s.tmp(), "") }},
	} {
		names, err := part.list()
		if err != nil {
			return nil, fmt.Errorf("count %s: %w", part.kind, err)
		}
		counts = append(counts, count{part.kind, names})
	}
	return counts, nil
}

// processes are the runtime's and those of the containers, by their command lines and cgroups.
func (s *soaked) processes() ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var list []string
	for _, entry := range entries {
		dir := filepath.Join("/proc", entry.Name())
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue // not a process, or gone
		}
		cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		if bytes.Contains(cmdline, []byte(s.name)) || bytes.Contains(cgroup, []byte(s.name)) {
			list = append(list, entry.Name())
		}
	}
	return list, nil
}

func mounts() ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	return slices.Collect(strings.Lines(string(text))), err
}

func (s *soaked) cgroups() ([]string, error) { return named("/sys/fs/cgroup", s.name) }

// descriptors are what ours lead to: their numbers are given to others again.
func descriptors() ([]string, error) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	var list []string
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue // the one that the directory was read by
		}
		list = append(list, target)
	}
	return list, err
}

// named are the files below dir whose names hold part. Whatever below it goes while we look is not there.
func named(dir, part string) ([]string, error) {
	var list []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil && path != dir {
			return fs.SkipDir
		}
		if err != nil {
			return err
		}
		if path != dir && strings.Contains(entry.Name(), part) {
			list = append(list, path)
		}
		return nil
	})
	return list, err
}

// grown are the kinds with names that were not there before: one that has gone does not make up for one that has come.
func grown(before, after []count) []string {
	var list []string
	for i := range before {
		if n := len(added(before[i], after[i])); n > 0 {
			list = append(list, fmt.Sprintf("%d more %s", n, after[i].kind))
		}
	}
	return list
}

// added are the names of after that before has not, or has less often.
func added(before, after count) []string {
	left := slices.Clone(before.names)
	var list []string
	for _, name := range after.names {
		if i := slices.Index(left, name); i >= 0 {
			left = slices.Delete(left, i, i+1)
		} else {
			list = append(list, strings.TrimSpace(name))
		}
	}
	return list
}

// compare prints the table. The error names what is new, a little of each kind.
func compare(out io.Writer, before, after []count) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\tbefore\tafter\n")
	for i := range before {
		fmt.Fprintf(w, "%s\t%d\t%d\n", before[i].kind, len(before[i].names), len(after[i].names))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	more := grown(before, after)
	if len(more) == 0 {
		return nil
	}
	const shown = 5
	var names []string
	for i := range after {
		more := added(before[i], after[i])
		names = append(names, more[:min(len(more), shown)]...)
	}
	return fmt.Errorf("%s: %s", strings.Join(more, ", "), strings.Join(names, "; "))
}
