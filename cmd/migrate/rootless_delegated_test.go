package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/runtime"
)

// delegated gives the person a cgroup, as systemd does with a user's session: the directory and the files that divide it.
// The person's commands run in a leaf of it. It returns the cgroup's path below the root.
func (p *person) delegated(t *testing.T) string {
	t.Helper()
	testutil.CgroupV2(t)
	top := fmt.Sprintf("migrate-user-%d", p.uid)
	dir := makeCgroup(t, top)
	session := makeCgroup(t, top, "session")
	for name := range strings.FieldsSeq(cgroupDelegate(t)) {
		for _, dir := range []string{dir, session} {
			if err := os.Chown(filepath.Join(dir, name), p.uid, p.uid); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	for _, dir := range []string{dir, session} {
		if err := os.Chown(dir, p.uid, p.uid); err != nil {
			t.Fatal(err)
		}
	}
	p.cgroup = session
	return top
}

// A user who was given a cgroup has limits, a freezer and a list of processes without being root.
func TestRootlessInADelegatedCgroup(t *testing.T) {
	h := newPersonsHost(t, forever)
	top := h.as.delegated(t)
	h.configure(forever, runtime.MakeRootless, h.as.mapOwn, func(s *specs.Spec) {
		s.Linux.CgroupsPath = "/" + top + "/ctr"
		s.Linux.Resources = &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: new(int64(64 << 20))},
			Pids:   &specs.LinuxPids{Limit: new(int64(20))},
		}
	})
	id := h.id("delegated")
	h.ok("run", "-d", id)
	want := func(file, text string) {
		t.Helper()
		if got := cgroupFile(t, top, "ctr", file); got != text {
			t.Errorf("%s is %q, want %q", file, got, text)
		}
	}
	want("memory.max", strconv.Itoa(64<<20))
	want("pids.max", "20")
	if got := h.ok("exec", id, "cat", "/proc/self/cgroup"); got != "0::/\n" {
		t.Errorf("exec is in %q", got)
	}
	pid := h.state(id).Pid
	if got := h.ok("ps", "-f", "json", id); !strings.Contains(got, strconv.Itoa(pid)) {
		t.Errorf("ps prints %q, init is %d", got, pid)
	}
	h.ok("pause", id)
	want("cgroup.events", "populated 1\nfrozen 1")
	if got := h.state(id).Status; got != "paused" {
		t.Errorf("it is %s", got)
	}
	h.ok("resume", id)
	h.ok("update", "--pids-limit", "30", "--memory", "32m", id)
	want("pids.max", "30")
	want("memory.max", strconv.Itoa(32<<20))
	if got := h.ok("events", "--stats", id); !strings.Contains(got, `"pids":{"current":1,"limit":30}`) && !strings.Contains(got, `"limit":30}`) {
		t.Errorf("events prints %s", got)
	}
	if got := h.run("update", "--cpuset-cpus", "4711", id); got.code != 1 {
		t.Errorf("an impossible cpuset: exit code %d", got.code)
	}
	h.ok("delete", "--force", id)
	if _, err := os.Stat(filepath.Join(cgroupRoot, top, "ctr")); !os.IsNotExist(err) {
		t.Errorf("the cgroup is left: %v", err)
	}

	// Beside it the user has no rights, and a path there was named, not left open.
	h.configure("true", runtime.MakeRootless, h.as.mapOwn, func(s *specs.Spec) { s.Linux.CgroupsPath = "/migrate-foreign" })
	if got := h.run("run", h.id("foreign")); got.code != 1 || !strings.Contains(message(t, got.stderr), "permission denied") {
		t.Errorf("a cgroup of somebody else's: exit code %d: %s", got.code, got.stderr)
	}
}
