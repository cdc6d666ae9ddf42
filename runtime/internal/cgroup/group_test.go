package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// group makes a cgroup of its own that is removed with whatever is left in it.
func group(t *testing.T) *Group {
	t.Helper()
	testutil.Root(t)
	config, err := Config(&specs.Spec{}, &Options{ID: fmt.Sprintf("migrate-test-%d-%d", os.Getpid(), time.Now().UnixNano())})
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Apply(-1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(g.Kill(ctx), g.Destroy()); err != nil {
			t.Error(err)
		}
	})
	return g
}

// busy starts a process that never stops working, with a child that does the same.
func busy(t *testing.T, g *Group) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "read x; (while :; do :; done) & while :; do :; done")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	if err := g.Apply(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		if pids, _ := g.Pids(); len(pids) == 2 {
			return cmd
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatal("the child did not come up")
	return nil
}

func TestFreezeAndThawAreIdempotent(t *testing.T) {
	g, ctx := group(t), context.Background()
	cmd := busy(t, g)
	for range 2 {
		if err := g.Freeze(ctx); err != nil {
			t.Fatal(err)
		}
		if frozen, err := g.Frozen(); !frozen || err != nil {
			t.Fatalf("frozen %v, error %v", frozen, err)
		}
	}
	before := ticks(t, cmd.Process.Pid)
	time.Sleep(50 * time.Millisecond)
	if after := ticks(t, cmd.Process.Pid); after != before {
		t.Error("a frozen process ran")
	}
	for range 2 {
		if err := g.Thaw(ctx); err != nil {
			t.Fatal(err)
		}
		if frozen, err := g.Frozen(); frozen || err != nil {
			t.Fatalf("frozen %v, error %v", frozen, err)
		}
	}
}

func TestKillReachesFrozenProcesses(t *testing.T) {
	g, ctx := group(t), context.Background()
	busy(t, g)
	if err := g.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := g.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if pids, err := g.Pids(); len(pids) != 0 || err != nil {
		t.Errorf("left: %v, error %v", pids, err)
	}
}

func TestCheckFreeRefusesSomebodyElsesCgroup(t *testing.T) {
	g := group(t)
	if err := g.CheckFree(); err != nil {
		t.Fatal(err)
	}
	busy(t, g)
	if err := g.CheckFree(); err == nil {
		t.Error("a cgroup with processes in it was taken")
	}
}

func TestJoinStaysBelowTheContainer(t *testing.T) {
	g := group(t)
	for _, sub := range []map[string]string{{"": "../.."}, {"nonsense": "x"}} {
		if err := g.Join(os.Getpid(), 0, sub); !errors.Is(err, errBadSub) {
			t.Errorf("%v: error is %v", sub, err)
		}
	}
	if pids, _ := g.Pids(); slices.Contains(pids, os.Getpid()) {
		t.Error("the process was moved all the same")
	}
}

// On cgroup v2 the rules are a program in the kernel: new ones replace it, they do not add a second that still refuses.
func TestNewDeviceRulesReplaceTheOld(t *testing.T) {
	testutil.CgroupV2(t)
	g := group(t)
	for _, allow := range []bool{true, false, true} {
		r, err := Resources(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
			{Allow: false, Access: "rwm"},
			{Allow: allow, Type: "c", Major: new(int64(1)), Minor: new(int64(5)), Access: "r"}, // /dev/zero
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Set(r); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-c", "read x; exec 3</dev/zero")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := g.Apply(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write([]byte("go\n")); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); (err == nil) != allow {
			t.Errorf("allowed %v: %v", allow, err)
		}
	}
}

// ticks is the user time of a process in clock ticks.
func ticks(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(stat)
}

func TestTracersAreKilledAfterWhatTheyHold(t *testing.T) {
	testutil.Root(t)
	held := exec.Command("sleep", "60")
	if err := held.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = held.Process.Kill()
		_ = held.Wait()
	}()
	runtime.LockOSThread() // a thread traces, and ends with the test
	if err := unix.PtraceSeize(held.Process.Pid); err != nil {
		t.Fatal(err)
	}
	all := []int{os.Getpid(), held.Process.Pid, os.Getppid()}
	if first := untracing(all); !slices.Equal(first, all[1:]) {
		t.Errorf("of %v, %v go first", all, first)
	}
}
