package preflight

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// Usage is what a cgroup and those below it have of memory, in bytes.
type Usage struct {
	Anonymous uint64 // private, once for all processes that share it
	Shared    uint64 // shared memory, and the files of tmpfs
	Files     uint64 // cached, and given up when memory is short
}

// UsageOf asks the kernel. paths are the cgroup's directories by controller.
func UsageOf(paths map[string]string) (Usage, error) {
	dir, ok := paths["memory"]
	if !ok {
		dir = paths[""] // cgroup v2
	}
	text, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return Usage{}, fmt.Errorf("read memory of the cgroup: %w", err)
	}
	return parseUsage(text), nil
}

// parseUsage reads a memory.stat of either version. That of version 1 has the sum with the cgroups below under total_.
func parseUsage(text []byte) Usage {
	values := make(map[string]uint64)
	for line := range bytes.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		values[name], _ = strconv.ParseUint(value, 10, 64)
	}
	if rss, v1 := values["total_rss"]; v1 {
		return Usage{Anonymous: rss, Shared: values["total_shmem"], Files: values["total_active_file"] + values["total_inactive_file"]}
	}
	return Usage{Anonymous: values["anon"], Shared: values["shmem"], Files: values["active_file"] + values["inactive_file"]}
}

// memory is what the container has. Where no cgroup tells, processes that share pages are counted in full.
func (c *container) memory() uint64 {
	if used, err := UsageOf(c.subject.Cgroups); err == nil {
		return used.Anonymous + used.Shared
	}
	var sum uint64
	for _, p := range c.processes {
		sum += p.anonymous
	}
	return sum
}

// noticed is from how much memory on the time that CRIU takes to copy it shows: some 35 ms for each 100 MB.
const noticed = 256 << 20

// judgeCopied names what CRIU copies while the container stands still.
func (c *container) judgeCopied() (Findings, uint64) {
	kinds, segments := make(map[string]uint64), make(map[[2]uint64]bool)
	count := func(kind string, st *syscall.Stat_t) {
		if id := [2]uint64{st.Dev, st.Ino}; !segments[id] {
			segments[id] = true
			kinds[kind] += uint64(st.Blocks) * 512
		}
	}
	for _, p := range c.processes {
		for i := range p.mappings {
			m := &p.mappings[i]
			if kind := m.copied(); kind != "" && kind != hugePages {
				if st, err := p.stat(m); err == nil {
					count(kind, &st)
				}
			}
		}
		for i := range p.descriptors {
			d := &p.descriptors[i]
			var st syscall.Stat_t
			if strings.HasPrefix(d.link, "/memfd:") && syscall.Stat(p.path("fd/"+strconv.Itoa(d.number)), &st) == nil {
				count(memfd, &st)
			}
		}
		kinds[hugePages] += p.hugetlb
		kinds[lockedMemory] += p.locked
	}
	if len(c.processes) > 0 {
		for _, point := range c.subject.Tmpfs {
			kinds[tmpfsFiles] += c.init().inTmpfs(point)
		}
	}
	return sayCopied(kinds)
}

// inTmpfs is how many bytes the tmpfs has that is mounted at a place of the process's.
func (p *proc) inTmpfs(point string) uint64 {
	dir, err := fs.OpenWithin(p.path("root"), point)
	if err != nil {
		return 0
	}
	defer dir.Close()
	var st syscall.Statfs_t
	if syscall.Fstatfs(dir.Fd(), &st) != nil || st.Type != fs.Tmpfs {
		return 0
	}
	return (st.Blocks - st.Bfree) * uint64(st.Bsize)
}

func sayCopied(kinds map[string]uint64) (Findings, uint64) {
	var parts []string
	var sum uint64
	for _, kind := range []string{sharedAnonymous, memfd, systemV, hugePages, lockedMemory, tmpfsFiles} {
		sum += kinds[kind]
		if kinds[kind] >= 1<<20 {
			parts = append(parts, size(kinds[kind])+" of "+kind+" memory")
		}
	}
	if len(parts) == 0 {
		return nil, sum
	}
	var f Findings
	severity, cure := Note, ""
	if sum >= noticed {
		severity, cure = Warning, "the stop takes that much longer, whatever the mode"
	}
	f.add(severity, CopiedMemory, cure, "%s is copied while the container stands still", strings.Join(parts, ", "))
	return f, sum
}
