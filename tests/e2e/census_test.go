package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/livemigrate/migrate/tests/lab"
)

// census counts what moves could leave behind, by host. The container is on the same host each time.
type census map[string]int

func (w *world) census() census {
	w.t.Helper()
	c := census{}
	for _, h := range []*lab.Host{w.A, w.B} {
		pids := h.Pids()
		for _, pid := range pids {
			cmdline, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			if !strings.Contains(string(cmdline), "migrate\x00") {
				continue // of the container, whose own come and go
			}
			c[h.Name+" processes of migrate"]++
			fds, _ := filepath.Glob("/proc/" + pid + "/fd/*")
			c[h.Name+" descriptors"] += len(fds)
			status, _ := os.ReadFile("/proc/" + pid + "/status")
			if _, rest, ok := strings.Cut(string(status), "RssAnon:"); ok {
				var kilobytes int
				_, _ = fmt.Sscan(rest, &kilobytes)
				c[h.Name+" MB"] += kilobytes >> 10
			}
		}
		for what, command := range map[string]string{
			"mounts":  "wc -l </proc/self/mountinfo",
			"links":   "ls /sys/class/net | wc -l",
			"files":   "find /run /dev/shm /var/lib/migrate/journal -type f | wc -l",
			"cgroups": "find /sys/fs/cgroup -type d -name kinds | wc -l",
		} {
			out, err := h.Run(w.ctx, "sh", "-c", command)
			if err != nil {
				w.t.Fatal(err)
			}
			var n int
			_, _ = fmt.Sscan(out, &n)
			c[h.Name+" "+what] = n
		}
	}
	return c
}

// notGrown compares with an earlier one. Memory is Go's to give back when it likes, and a move's journal is kept a while.
func (w *world) notGrown(early census) {
	w.t.Helper()
	now := w.census()
	w.t.Logf("early: %v", early)
	w.t.Logf("now:   %v", now)
	for what, n := range now {
		slack := 0
		switch {
		case strings.HasSuffix(what, " MB"):
			slack = 64
		case strings.HasSuffix(what, " descriptors"), strings.HasSuffix(what, " files"):
			slack = 8
		}
		if n > early[what]+slack {
			w.t.Errorf("%s: %d, were %d", what, n, early[what])
		}
	}
}
