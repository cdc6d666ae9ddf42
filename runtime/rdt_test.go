package runtime

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const oldShares = "MB:0=100\nL3:0=fffff\n"

// fakeResctrl is a directory tree in place of the filesystem, with one group, "box".
func fakeResctrl(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"info/L3", "info/MB", "box"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "box", "schemata"), []byte(oldShares), 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

// giveGroup makes the group the container's.
func giveGroup(t *testing.T, c *Container, path string) {
	t.Helper()
	err := c.UpdateState(func(s *State) {
		s.IntelRdtPath = path
		s.Plan.Spec.Linux.IntelRdt = &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=fffff"}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSharesAndLimitsChangeTogetherOrNotAtAll(t *testing.T) {
	few, more := int64(20), int64(30)
	before := &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &few}}
	change := func() *specs.LinuxResources { return &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &more}} }
	shares := &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f", MemBwSchema: "MB:0=20"}
	r, root := testRuntime(t), fakeResctrl(t)
	c := testContainer(t, r, testPlan(t, forever), true)
	giveGroup(t, c, filepath.Join(root, "box"))
	if err := c.set(root, before, nil); err != nil {
		t.Fatal(err)
	}
	schemata, state := filepath.Join(root, "box", "schemata"), filepath.Join(c.StateDir(), stateFile)
	want := func(shares string, pids int64, schema string) {
		t.Helper()
		if got, err := os.ReadFile(schemata); err != nil || string(got) != shares {
			t.Errorf("shares are %q, error %v", got, err)
		}
		if stats, err := c.group.Stats(); err != nil || stats.PidsStats.Limit != uint64(pids) {
			t.Errorf("%d processes are allowed, want %d, error %v", stats.PidsStats.Limit, pids, err)
		}
		if got := c.Spec().Linux; got.IntelRdt.L3CacheSchema != schema || *got.Resources.Pids.Limit != pids {
			t.Errorf("the spec says %s", jsonOf(t, got))
		}
	}

	impossible := change()
	impossible.CPU = &specs.LinuxCPU{Cpus: "99999"}
	if err := c.set(root, impossible, shares); err == nil {
		t.Error("an impossible cpuset was taken")
	}
	want(oldShares, few, "L3:0=fffff")

	// A file that can be read and not written, as root too.
	if err := errors.Join(os.Remove(schemata), os.Symlink("/proc/sys/kernel/osrelease", schemata)); err != nil {
		t.Fatal(err)
	}
	if err := c.set(root, change(), shares); err == nil {
		t.Error("shares were written to a file that takes none")
	}
	if err := errors.Join(os.Remove(schemata), os.WriteFile(schemata, []byte(oldShares), 0o600)); err != nil {
		t.Fatal(err)
	}
	want(oldShares, few, "L3:0=fffff")

	if err := errors.Join(os.Rename(state, state+".away"), os.WriteFile(state, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := c.set(root, change(), shares); err == nil {
		t.Error("the new limits were saved to a corrupt state")
	}
	if err := os.Rename(state+".away", state); err != nil {
		t.Fatal(err)
	}
	want(oldShares, few, "L3:0=fffff")

	if err := c.set(root, change(), shares); err != nil {
		t.Fatal(err)
	}
	want("L3:0=f\nMB:0=20\n", more, "L3:0=f")

	if err := c.Signal(context.Background(), unix.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, c, Stopped)
	if err := c.set(root, change(), &specs.LinuxIntelRdt{MemBwSchema: "MB:0=30"}); !errors.Is(err, ErrNotRunning) {
		t.Errorf("shares of a stopped container: %v", err)
	}
	if got, _ := os.ReadFile(schemata); string(got) != "L3:0=f\nMB:0=20\n" {
		t.Errorf("shares are %q", got)
	}
}

func TestExecWorksWithoutTheResctrlGroup(t *testing.T) {
	c := testContainer(t, testRuntime(t), testPlan(t, forever), true)
	giveGroup(t, c, filepath.Join(t.TempDir(), "gone"))
	log := new(bytes.Buffer)
	c.log = slog.New(slog.NewTextHandler(log, nil))
	if out := run(t, c, "echo $$ >/dev/null; id -u"); out != "0\n" {
		t.Errorf("output is %q", out)
	}
	if !strings.Contains(log.String(), "resctrl group is gone") {
		t.Errorf("no warning: %s", log)
	}
}

// CRIU's processes do not all descend from one that had joined.
func TestEveryAdoptedProcessJoinsTheResctrlGroup(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	prepared, err := r.Prepare(ctx, testID(t), testPlan(t, "true"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = prepared.Discard(ctx) })
	init, child := sleeper(t).Process.Pid, sleeper(t).Process.Pid
	if err := errors.Join(prepared.PlaceInit(init), prepared.group.Join(child, init, nil)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "tasks"), 0o600); err != nil { // as the kernel's file, not emptied by opening it
		t.Fatal(err)
	}
	tasks, err := os.OpenFile(filepath.Join(dir, "tasks"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tasks.Close()
	if err := tasks.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	prepared.state.IntelRdtPath = dir
	if _, err := prepared.Adopt(ctx, init, nil); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := tasks.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{init, child} {
		if !slices.Contains(strings.Fields(string(buf[:n])), strconv.Itoa(pid)) {
			t.Errorf("process %d is not in the group, these are: %q", pid, buf[:n])
		}
	}
}
