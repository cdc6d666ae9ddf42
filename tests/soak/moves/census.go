package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/tests/lab"
)

// count is one line of the table: what there is of a kind on a host. Things that have names are compared by these, others by
// their number; those that come and go have slack.
type count struct {
	host  *lab.Host
	kind  string
	names []string
	n     int
	slack int
}

func (c *count) number() int { return max(c.n, len(c.names)) }

// settled takes the census, again while there is more than before: a reaper has its own pace, and the kernel removes cgroups later.
func (w *world) settled(ctx context.Context, before []count) ([]count, error) {
	for deadline := time.Now().Add(patience / 3); ; {
		if late := time.Now().After(deadline); w.calm() || late {
			now, err := w.census()
			if err != nil || len(grown(before, now)) == 0 || late {
				return now, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// calm tells that no move is under way any more. A keeper that has only just become a monitor, by an exec, has opened a part of what
// it will have, and taken little memory: what is counted then has grown a moment later.
func (w *world) calm() bool {
	for _, h := range []*lab.Host{w.A, w.B} {
		if len(h.Keepers())+len(h.CRIUs())+len(h.Feeders()) > 0 || !begun(h) {
			return false
		}
	}
	return true
}

func (w *world) census() ([]count, error) {
	var all []count
	for _, h := range []*lab.Host{w.A, w.B} {
		p := w.look(h)
		all = append(all,
			count{h, "processes", p.processes, 0, 0},
			count{h, "descriptors of serve", p.serve, 0, 0},
			count{h, "descriptors of keepers and monitors", p.descriptors, 0, 0},
			count{h, "sockets in repair", p.repaired, 0, 0},
			count{h, "MB of migrate's processes", nil, p.megabytes, 24},
			count{h, "MB of the host", nil, w.megabytes(h), 24},
		)
		for _, part := range []struct {
			kind string
			list func(*lab.Host) ([]string, error)
		}{
			{"mounts", (*lab.Host).Mounts},
			{"cgroups", w.cgroups},
			{"links", links},
			{"rules of packet filters", rules},
			{"files in /run and /dev/shm", memoryFiles},
			{"files in /var/lib/migrate", diskFiles},
		} {
			names, err := part.list(h)
			if err != nil {
				return nil, fmt.Errorf("count %s on %s: %w", part.kind, h.Name, err)
			}
			all = append(all, count{h, part.kind, names, 0, 0})
		}
		journals, err := filepath.Glob(h.Path("/var/lib/migrate/journal/*"))
		if err != nil {
			return nil, err
		}
		all = append(all, count{h, "journals (kept)", nil, len(journals), 1 << 20})
	}
	temporary, err := below(w.tmp)
	return append(all, count{w.C, "temporary files", temporary, 0, 0}), err
}

// looked is what processes tell.
type looked struct {
	processes, repaired, serve, descriptors []string
	megabytes                               int
}

func (w *world) look(h *lab.Host) looked {
	var l looked
	kilobytes := 0
	for _, text := range h.Pids() {
		cmdline, err := os.ReadFile("/proc/" + text + "/cmdline")
		if err != nil || len(cmdline) == 0 { // gone, or waits to be reaped
			continue
		}
		l.processes = append(l.processes, name(cmdline))
		pid, _ := strconv.Atoi(text)
		switch {
		case pid == w.servers[h].Cmd.Process.Pid:
			l.serve = lab.Descriptors(pid)
		case bytes.Contains(cmdline, []byte("migrate\x00")):
			l.descriptors = append(l.descriptors, lab.Descriptors(pid)...)
		default:
			l.repaired = append(l.repaired, repaired(pid)...)
			continue
		}
		status, _ := os.ReadFile("/proc/" + text + "/status")
		if _, rest, ok := strings.Cut(string(status), "RssAnon:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			kilobytes += n
		}
	}
	l.megabytes = kilobytes >> 10
	return l
}

// name is a command line without what is different each time: directories, and names of moves.
func name(cmdline []byte) string {
	var words []string
	for word := range strings.SplitSeq(strings.TrimRight(string(cmdline), "\x00"), "\x00") {
		if _, err := strconv.Atoi(word); err != nil && !strings.Contains(word, "/") || len(words) == 0 {
			words = append(words, filepath.Base(word))
		}
	}
	return strings.Join(words, " ")
}

// tcpRepair is TCP_REPAIR of linux/tcp.h.
const tcpRepair = 19

// repaired are the sockets of a container's process that CRIU has left dead to it.
func repaired(pid int) []string {
	process, err := descriptor.OpenRemote(pid)
	if err != nil {
		return nil
	}
	defer process.Close()
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	var list []string
	for _, fd := range fds {
		n, _ := strconv.Atoi(fd.Name())
		_ = process.With(n, func(duplicate int) error {
			if on, err := syscall.GetsockoptInt(duplicate, syscall.IPPROTO_TCP, tcpRepair); err == nil && on != 0 {
				list = append(list, fmt.Sprintf("%d/%s", pid, fd.Name()))
			}
			return nil
		})
	}
	return list
}

// megabytes is what the host's cgroup is charged with and cannot be read again from files.
func (w *world) megabytes(h *lab.Host) int {
	limit := h.MemoryLimitFile()
	if limit == "" {
		return 0
	}
	used, err := preflight.UsageOf(map[string]string{"": filepath.Dir(limit)})
	if err != nil {
		return 0
	}
	return int((used.Anonymous + used.Shared) >> 20)
}

// grown are the lines of which there is more than before: a name that has gone does not make up for one that has come.
func grown(before, after []count) []string {
	var list []string
	for i := range before {
		more := added(before[i].names, after[i].names)
		switch {
		case len(more) > 0:
			list = append(list, fmt.Sprintf("%s: %d more %s: %s", after[i].host.Name, len(more), after[i].kind,
				strings.Join(more[:min(len(more), 5)], "; ")))
		case after[i].n > before[i].n+before[i].slack:
			list = append(list, fmt.Sprintf("%s: %d %s, were %d", after[i].host.Name, after[i].n, after[i].kind, before[i].n))
		}
	}
	return list
}

// added are the names that there are now, or more often than before.
func added(before, after []string) []string {
	left := slices.Clone(before)
	var list []string
	for _, name := range after {
		if i := slices.Index(left, name); i >= 0 {
			left = slices.Delete(left, i, i+1)
		} else {
			list = append(list, name)
		}
	}
	return list
}
