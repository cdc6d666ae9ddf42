// Package testutil holds what tests of several packages share: the one place that may skip a test.
package testutil

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Need skips the test when ok is false, naming what is missing. Where CI is set everything must be there, so the test
// fails instead: a suite that skips itself silently proves nothing.
func Need(t testing.TB, ok bool, missing string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("missing here, and CI must have it: %s", missing)
	}
	t.Skipf("missing: %s", missing)
}

// Root skips the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	Need(t, os.Geteuid() == 0, "root")
}

// Command skips the test unless the program is on PATH, and returns its path.
func Command(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	Need(t, err == nil, "the program "+name)
	return path
}

// Kernel skips the test where the kernel lacks something. The machines of `make test-vm`, which sets MIGRATE_VM, are there for
// their kernels, old ones among them: it is no failure there.
func Kernel(t testing.TB, ok bool, missing string) {
	t.Helper()
	if !ok && os.Getenv("MIGRATE_VM") != "" {
		t.Skipf("missing in this kernel: %s", missing)
	}
	Need(t, ok, missing+", of the kernel")
}

// Extra skips a test of a program that scripts/setup does not install, for its size, even in CI: `make test-strangers` installs
// it, and sets MIGRATE_STRANGERS, by which a missing one is a failure.
func Extra(t testing.TB, ok bool, name string) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv("MIGRATE_STRANGERS") != "":
		t.Fatalf("missing here, and make test-strangers must have it: the program %s", name)
	default:
		t.Skipf("missing: the program %s (make test-strangers installs it)", name)
	}
}

// CgroupV2 skips a test that needs cgroup v2 alone on a machine that has v1, even in CI: `make test-vm` runs it, on machines
// made for that, and sets MIGRATE_VM, by which a missing cgroup v2 is a failure.
func CgroupV2(t testing.TB) {
	t.Helper()
	if Cgroup2Alone() {
		return
	}
	if os.Getenv("MIGRATE_VM") != "" {
		t.Fatal("missing here, and make test-vm must have it: cgroup v2 alone")
	}
	t.Skip("missing: cgroup v2 alone (make test-vm runs this)")
}

// CgroupV1 skips a test of cgroup v1 on a machine that has v2 alone, as Debian starts it, even in CI.
func CgroupV1(t testing.TB) {
	t.Helper()
	if Cgroup2Alone() {
		t.Skip("missing: cgroup v1")
	}
	_, err := os.Stat("/sys/fs/cgroup/memory/memory.limit_in_bytes")
	Need(t, err == nil, "cgroup v1 with the memory controller")
}

// Cgroup2Alone says that the machine has no hierarchy of cgroup v1 where those are looked for.
func Cgroup2Alone() bool {
	var fs syscall.Statfs_t
	const cgroup2SuperMagic = 0x63677270
	return syscall.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == cgroup2SuperMagic
}

// Cgroups are the directories of a cgroup that exist: one a hierarchy of v1, and v2's. The name may be a pattern of
// filepath.Match.
func Cgroups(name string) []string {
	v1, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
	v2, _ := filepath.Glob("/sys/fs/cgroup/" + name)
	return append(v1, v2...)
}
