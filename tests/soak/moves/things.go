package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/livemigrate/migrate/tests/lab"
)

// cgroups are those below the host's, by hierarchy.
func (w *world) cgroups(h *lab.Host) ([]string, error) {
	tops, err := os.ReadFile(filepath.Join("/var/lib/migrate-lab", w.Name, "cgroups"))
	if err != nil {
		return nil, err
	}
	var list []string
	for top := range strings.Lines(string(tops)) {
		dir := filepath.Join(strings.TrimSpace(top), h.Name[len(h.Name)-1:])
		names, err := walk(dir, fs.FileMode.IsDir)
		if err != nil {
			return nil, err
		}
		list = append(list, names...)
	}
	return list, nil
}

// on runs a command in the host's network.
func on(h *lab.Host, args ...string) ([]string, error) {
	out, err := exec.Command("nsenter", append([]string{"--target", strconv.Itoa(h.Holder()), "--net"}, args...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			list = append(list, line)
		}
	}
	return list, nil
}

// links by their names; those of containers are made anew on each host, but by the same name.
func links(h *lab.Host) ([]string, error) {
	lines, err := on(h, "ip", "-o", "link")
	for i, line := range lines {
		lines[i] = strings.TrimSuffix(strings.Fields(line)[1], ":")
		lines[i], _, _ = strings.Cut(lines[i], "@")
	}
	return lines, err
}

// rules of nftables, which also has those of iptables-nft, and of the older iptables.
func rules(h *lab.Host) ([]string, error) {
	list, err := on(h, "nft", "list", "ruleset")
	if err != nil {
		return nil, err
	}
	if _, err := exec.LookPath("iptables-legacy-save"); err != nil {
		return list, nil //nolint:nilerr // nobody could have made any with it
	}
	older, err := on(h, "iptables-legacy-save")
	return append(list, slices.DeleteFunc(older, func(line string) bool { return !strings.HasPrefix(line, "-A") })...), err
}

// memoryFiles are those of containers and moves, without what hosts remember of themselves.
func memoryFiles(h *lab.Host) ([]string, error) {
	var list []string
	for _, dir := range []string{"/run", "/dev/shm"} {
		root := fmt.Sprintf("/proc/%d/root", h.Holder())
		names, err := below(root + dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			base := filepath.Base(name)
			if !strings.HasPrefix(base, "cpuinfo-") && !strings.HasPrefix(base, "cpu-passed-") && !strings.HasPrefix(base, "criu.kdat") {
				list = append(list, strings.TrimPrefix(name, root))
			}
		}
	}
	return list, nil
}

// diskFiles are those beside the journals.
func diskFiles(h *lab.Host) ([]string, error) {
	top := filepath.Dir(h.Path("/var/lib/migrate/journal"))
	names, err := below(top)
	for i, name := range names {
		names[i] = strings.TrimPrefix(name, top)
	}
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "/journal/") }), err
}

func below(dir string) ([]string, error) { return walk(dir, func(fs.FileMode) bool { return true }) }

// walk lists what is below dir. What goes while we look is not there.
func walk(dir string, want func(fs.FileMode) bool) ([]string, error) {
	var list []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil && path == dir:
			return err
		case err != nil:
			return fs.SkipDir
		case path != dir && want(entry.Type()):
			list = append(list, path)
		}
		return nil
	})
	return list, err
}

// compare prints the table, a line for each kind. The error names what is new.
func compare(out io.Writer, before, after []count) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\thost\tbefore\tafter\n")
	for i := range before {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\n", before[i].kind, before[i].host.Name, before[i].number(), after[i].number())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	if more := grown(before, after); len(more) > 0 {
		return errors.New(strings.Join(more, "\n"))
	}
	return nil
}
