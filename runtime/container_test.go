package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/runtime/internal/cgroup"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestLifeOfAContainer(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	pidFile := filepath.Join(t.TempDir(), "pid")
	p := testPlan(t, "touch /tmp/ran; "+forever)
	c, err := r.Create(ctx, testID(t), p, &CreateOptions{PidFile: pidFile})
	if err != nil {
		t.Fatal(err)
	}
	ran := filepath.Join(p.Rootfs, "tmp/ran")
	wantStatus(t, c, Created)
	if _, err := os.Stat(ran); err == nil {
		t.Error("the program ran before start")
	}
	if pid, _ := os.ReadFile(pidFile); string(pid) == "" || string(pid) != jsonOf(t, c.InitPid()) {
		t.Errorf("pid file holds %q, init is %d", pid, c.InitPid())
	}
	if _, err := r.Create(ctx, c.ID(), p, nil); !errors.Is(err, ErrExists) {
		t.Errorf("a second container of the id: %v", err)
	}
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, c, Running)
	if err := c.Start(ctx); !errors.Is(err, ErrStarted) {
		t.Errorf("a second start: %v", err)
	}
	if err := c.Delete(ctx, false); !errors.Is(err, ErrRunning) {
		t.Errorf("delete of a running container: %v", err)
	}
	again, err := r.Load(c.ID()) // as another command would
	if err != nil {
		t.Fatal(err)
	}
	if again.InitPid() != c.InitPid() || again.Bundle() != p.Bundle {
		t.Errorf("loaded init %d, bundle %s", again.InitPid(), again.Bundle())
	}
	if err := again.Signal(ctx, syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, again, Stopped)
	if err := c.Start(ctx); !errors.Is(err, ErrStopped) {
		t.Errorf("start of a stopped container: %v", err)
	}
	pids, err := c.Processes()
	for end := time.Now().Add(5 * time.Second); len(pids) != 0 && time.Now().Before(end); pids, err = c.Processes() {
		time.Sleep(10 * time.Millisecond) // a dead process leaves its cgroup a little later, on a busy machine
	}
	if len(pids) != 0 || err != nil {
		t.Errorf("a stopped container has processes %v, error %v", pids, err)
	}
	dirs := c.State().CgroupPaths
	if err := c.Delete(ctx, false); err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("cgroup %s is left", dir)
		}
	}
	if _, err := r.Load(c.ID()); !errors.Is(err, ErrNotExist) {
		t.Errorf("after delete: %v", err)
	}
	if err := c.Delete(ctx, true); err != nil {
		t.Errorf("a second delete with force: %v", err)
	}
	if err := c.Delete(ctx, false); !errors.Is(err, ErrNotExist) {
		t.Errorf("a second delete: %v", err)
	}
}

func TestCreateThatFailsLeavesNothing(t *testing.T) {
	r := testRuntime(t)
	for name, change := range map[string]func(*specs.Spec){
		"missing program": func(s *specs.Spec) { s.Process.Args = []string{"/nonexistent"} },
		"bad mount": func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nofs", Source: "x"})
		},
		"failing hook": func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := testPlan(t, "true", change)
			if _, err := r.Create(context.Background(), testID(t), p, nil); err == nil {
				t.Fatal("no error")
			} else if strings.Contains(err.Error(), "\n") {
				t.Errorf("error has more than one line: %v", err)
			}
			if _, err := os.Stat(r.dir(testID(t))); err == nil {
				t.Error("the state directory is left")
			}
			for _, path := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
				if left, _ := filepath.Glob(filepath.Join(path, "*", testID(t))); len(left) > 0 {
					t.Errorf("cgroups are left: %v", left)
				}
			}
		})
	}
}

func TestPauseStopsAndResumeGoesOn(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	c := testContainer(t, r, testPlan(t, forever), true)
	if err := c.Resume(ctx); !errors.Is(err, ErrNotPaused) {
		t.Errorf("resume of a running container: %v", err)
	}
	if err := c.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, c, Paused)
	if err := c.Pause(ctx); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a second pause: %v", err)
	}
	if _, err := c.Exec(ctx, &ExecOptions{Process: c.Spec().Process}); !errors.Is(err, ErrPaused) {
		t.Errorf("exec in a paused container: %v", err)
	}
	if err := c.Start(ctx); err == nil || err.Error() != "cannot start a container in the paused state" {
		t.Errorf("start of a paused container: %v", err)
	}
	if err := c.Delete(ctx, false); !errors.Is(err, ErrRunning) {
		t.Errorf("delete of a paused container: %v", err)
	}
	if err := c.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, c, Running)
	if err := c.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	// A paused container must die of SIGKILL, and be deleted by force.
	if err := c.Signal(ctx, syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, c, Stopped)
	if err := c.Pause(ctx); !errors.Is(err, ErrNotRunning) {
		t.Errorf("pause of a stopped container: %v", err)
	}
	if _, err := c.Exec(ctx, &ExecOptions{Process: c.Spec().Process}); !errors.Is(err, ErrExecStopped) {
		t.Errorf("exec in a stopped container: %v", err)
	}
	if err := c.Signal(ctx, syscall.SIGTERM, false); !errors.Is(err, ErrNotRunning) {
		t.Errorf("kill of a stopped container: %v", err)
	}
}

func TestDeleteByForceKillsAFrozenContainer(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	c := testContainer(t, r, testPlan(t, forever), true)
	if err := c.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, true); err != nil {
		t.Fatal(err)
	}
}

// Without a pid namespace the death of init leaves the others alive.
func TestSharedPidNamespaceLeavesNoProcess(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	shared := func(s *specs.Spec) {
		var rest []specs.LinuxNamespace
		for _, n := range s.Linux.Namespaces {
			if n.Type != specs.PIDNamespace {
				rest = append(rest, n)
			}
		}
		s.Linux.Namespaces = rest
	}
	for name, end := range map[string]func(c *Container) error{
		"kill": func(c *Container) error { return c.Signal(ctx, syscall.SIGKILL, false) },
		"delete": func(c *Container) error {
			return errors.Join(c.signalInit(ctx, syscall.SIGKILL), c.Wait(ctx), c.Delete(ctx, false))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := testContainer(t, r, testPlan(t, "sleep 1000 & sleep 1000 & "+forever, shared), true)
			for range 2000 {
				if pids, _ := c.Processes(); len(pids) >= 3 {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			pids, err := c.Processes()
			if err != nil || len(pids) < 3 {
				t.Fatalf("processes %v, error %v", pids, err)
			}
			starts := map[int]uint64{}
			for _, pid := range pids {
				starts[pid], _ = process.StartTime(pid)
			}
			if err := end(c); err != nil {
				t.Fatal(err)
			}
			for pid, start := range starts {
				for range 1000 { // a killed process may take its time on a busy machine
					if start == 0 || !process.Alive(pid, start) {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
				if start != 0 && process.Alive(pid, start) {
					t.Errorf("process %d is alive", pid)
				}
			}
		})
	}
}

func TestExecJoinsTheContainer(t *testing.T) {
	r := testRuntime(t)
	c := testContainer(t, r, testPlan(t, forever), true)
	if out := run(t, c, "echo $$ > /tmp/pid; cat /proc/1/comm; id -u"); out != "sh\n0\n" {
		t.Errorf("output is %q", out)
	}
	process := c.Spec().Process
	process.Args = []string{"sh", "-c", "exit 42"}
	e, err := c.Exec(context.Background(), &ExecOptions{Process: process})
	if err != nil {
		t.Fatal(err)
	}
	if status, err := e.Wait(); status != 42 || err != nil {
		t.Errorf("status %d, error %v", status, err)
	}
}

func TestSetIsKeptAndRolledBack(t *testing.T) {
	r := testRuntime(t)
	limit := int64(64 << 20)
	p := testPlan(t, forever, func(s *specs.Spec) { s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit} })
	c := testContainer(t, r, p, true)
	pids, more := int64(20), int64(128<<20)
	if err := c.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &more}, Pids: &specs.LinuxPids{Limit: &pids}}, nil); err != nil {
		t.Fatal(err)
	}
	stats, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if stats.Memory.Usage.Limit != uint64(more) || stats.Pids.Limit != uint64(pids) {
		t.Errorf("limits are %d bytes, %d pids", stats.Memory.Usage.Limit, stats.Pids.Limit)
	}
	bad := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}, CPU: &specs.LinuxCPU{Cpus: "99999"}}
	if err := c.Set(bad, nil); err == nil {
		t.Fatal("an impossible cpuset was taken")
	}
	again, err := r.Load(c.ID())
	if err != nil {
		t.Fatal(err)
	}
	if stats, err = again.Stats(); err != nil || stats.Memory.Usage.Limit != uint64(more) {
		t.Errorf("after a failed change the limit is %d, error %v", stats.Memory.Usage.Limit, err)
	}
	if got := again.Spec().Linux.Resources; *got.Memory.Limit != more || *got.Pids.Limit != pids || len(got.Devices) == 0 {
		t.Errorf("kept resources are %s", jsonOf(t, got))
	}
}

func TestOOMIsNotified(t *testing.T) {
	r := testRuntime(t)
	limit := int64(64 << 20)
	p := testPlan(t, "sleep 1000", func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	})
	c := testContainer(t, r, p, true)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ooms, err := c.NotifyOOM(ctx)
	if err != nil {
		t.Fatal(err)
	}
	process := c.Spec().Process
	process.Args = []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"}
	e, err := c.Exec(ctx, &ExecOptions{Process: process})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = e.Wait() }()
	select {
	case _, ok := <-ooms:
		if !ok {
			t.Error("the channel was closed without an event")
		}
	case <-ctx.Done():
		t.Error("no event")
	}
}

func TestHooksRunInTheirOrder(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	log := filepath.Join(t.TempDir(), "log")
	hook := func(name string) []specs.Hook {
		return []specs.Hook{{
			Path: "/bin/sh", Args: []string{"sh", "-c", `read -r state; echo "` + name + ` $state" >> ` + log},
			Env: []string{"PATH=/bin:/usr/bin"},
		}}
	}
	p := testPlan(t, forever, func(s *specs.Spec) {
		s.Annotations = map[string]string{"owner": "me"}
		s.Hooks = &specs.Hooks{
			Prestart:      hook("prestart"), //nolint:staticcheck // SA1019: engines use it.
			CreateRuntime: hook("createRuntime"),
			Poststart:     hook("poststart"),
			Poststop:      hook("poststop"),
		}
	})
	c := testContainer(t, r, p, true)
	pid := c.InitPid()
	if err := c.Delete(ctx, true); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct{ name, status string }{
		{"prestart", "creating"}, {"createRuntime", "creating"}, {"poststart", "running"}, {"poststop", "stopped"},
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) != len(want) {
		t.Fatalf("hooks left %q", lines)
	}
	for i, line := range lines {
		name, text, _ := strings.Cut(line, " ")
		var state specs.State
		if err := json.Unmarshal([]byte(text), &state); err != nil {
			t.Fatal(err)
		}
		if name != want[i].name || string(state.Status) != want[i].status || state.Annotations["owner"] != "me" || state.Bundle != p.Bundle {
			t.Errorf("hook %d: %s", i, line)
		}
		if wantPid := map[bool]int{true: 0, false: pid}[name == "poststop"]; state.Pid != wantPid {
			t.Errorf("%s saw pid %d, want %d", name, state.Pid, wantPid)
		}
	}
}

func TestFailingPoststartEndsTheContainer(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	p := testPlan(t, forever, func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/false"}}}
	})
	c := testContainer(t, r, p, false)
	if err := c.Start(ctx); err == nil || !strings.Contains(err.Error(), "error running poststart hook #0") {
		t.Errorf("error is %v", err)
	}
	wantStatus(t, c, Stopped)
}

func TestConcurrentUse(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	c := testContainer(t, r, testPlan(t, forever), true)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			other, err := r.Load(c.ID())
			if err != nil {
				t.Error(err)
				return
			}
			for _, one := range []*Container{c, other} {
				if _, err := one.Status(); err != nil {
					t.Error(err)
				}
				if err := one.UpdateState(func(s *State) { s.MonitorPid++ }); err != nil {
					t.Error(err)
				}
				_ = one.State()
			}
		})
	}
	all.Wait()
	again, err := r.Load(c.ID())
	if err != nil {
		t.Fatal(err)
	}
	if got := again.State().MonitorPid; got != 16 {
		t.Errorf("16 changes were made, %d are there", got)
	}
	if err := c.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Thaw(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestWaitReturnsWhenInitIsGone(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	c := testContainer(t, r, testPlan(t, forever), true)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := c.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for a running container: %v", err)
	}
	time.AfterFunc(20*time.Millisecond, func() { _ = c.Signal(ctx, syscall.SIGKILL, false) })
	if err := c.Wait(ctx); err != nil {
		t.Error(err)
	}
	wantStatus(t, c, Stopped)
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestMemoryPressureIsNotified(t *testing.T) {
	if cgroup.V2() {
		return // NotifyMemoryPressure is for cgroup v1, and says so
	}
	r := testRuntime(t)
	p := testPlan(t, "while :; do dd if=/dev/zero of=/tmp/file bs=1048576 count=120 2>/dev/null; done", func(s *specs.Spec) {
		limit := int64(48 << 20) // room for an init with the race detector
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	})
	c := testContainer(t, r, p, false)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	events, err := c.NotifyMemoryPressure(ctx, "low")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, ok := <-events; !ok {
		t.Error("no pressure was notified")
	}
	if _, err := c.NotifyMemoryPressure(ctx, "mild"); err == nil {
		t.Error("an unknown level is no error")
	}
}
