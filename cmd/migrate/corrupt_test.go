package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/testutil"
)

func TestCorruptStateStopsNothingButItsContainer(t *testing.T) {
	h := newContainerHost(t, "while :; do sleep 1; done")
	good, bad := h.id("good"), h.id("bad")
	for _, id := range []string{good, bad} {
		h.ok("run", "--detach", id)
	}
	pid := h.state(bad).Pid
	state := filepath.Join(h.root, bad, "state.json")
	for name, size := range map[string]int64{"empty": 0, "cut": 1000} {
		if err := os.Truncate(state, size); err != nil {
			t.Fatal(err)
		}
		got := h.run("list", "-q")
		if got.code != 0 || got.stdout != good+"\n" || !strings.Contains(got.stderr, bad) || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%s: list: exit code %d, stdout %q, stderr %q", name, got.code, got.stdout, got.stderr)
		}
		for _, args := range [][]string{
			{"state"}, {"start"}, {"kill"}, {"pause"}, {"resume"}, {"ps"}, {"events", "--stats"}, {"update", "--pids-limit", "9"}, {"delete"},
		} {
			got := h.run(append(args, bad)...)
			if text := message(t, got.stderr); got.code != 1 || got.stdout != "" || !strings.Contains(text, "read state of container "+bad+": ") {
				t.Errorf("%s: %v: exit code %d, stdout %q, stderr %q", name, args, got.code, got.stdout, got.stderr)
			}
		}
		if got := h.run("exec", bad, "true"); got.code != 255 || !strings.Contains(message(t, got.stderr), "read state of container "+bad) {
			t.Errorf("%s: exec: exit code %d, stderr %q", name, got.code, got.stderr)
		}
	}
	h.ok("delete", "--force", bad)
	if _, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/root/bin/busybox"); err == nil {
		t.Errorf("process %d of the deleted container lives", pid)
	}
	if left := testutil.Cgroups(bad); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
	h.ok("exec", good, "true")
}
