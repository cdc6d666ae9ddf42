package spec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/testutil"
)

func TestContainerHasASessionKeyringOfItsOwn(t *testing.T) {
	b := newBox(t, "sleep 60")
	b.spec.Linux.MaskedPaths = nil
	b.write()
	b.ok("run", "--detach", b.id)
	show := "grep -c ' _ses." + b.id + ": ' /proc/keys"
	if got := b.ok("exec", b.id, "sh", "-c", show); got != "1\n" {
		t.Errorf("exec sees %q of the container's keyring", got)
	}
	other := newBox(t, "")
	other.spec.Process.Args[2] = "grep -c ' _ses." + other.id + ": ' /proc/keys"
	other.spec.Linux.MaskedPaths = nil
	other.write()
	if got := other.migrate("run", "--no-new-keyring", other.id); got.stdout != "0\n" {
		t.Errorf("with the caller's keyring it sees %q, %s", got.stdout, got.stderr)
	}
}

func TestInitDoesNotOutliveACreateThatIsKilled(t *testing.T) {
	b := newBox(t, "true")
	mark := filepath.Join(b.bundle, "mark")
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{hook("cat > " + mark + "; exec sleep 3")}}
	b.write()
	cmd := b.command("create", b.id)
	must(t, cmd.Start())
	eventually(t, "the hook runs", func() bool {
		data, err := os.ReadFile(mark)
		return err == nil && strings.HasSuffix(string(data), "}")
	})
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	procs := "/sys/fs/cgroup/pids/" + b.id + "/cgroup.procs"
	if _, err := os.Stat(procs); err != nil {
		procs = "/sys/fs/cgroup/" + b.id + "/cgroup.procs"
	}
	eventually(t, "init ends", func() bool {
		data, err := os.ReadFile(procs)
		return err == nil && len(data) == 0
	})
	if state := b.ok("state", b.id); !strings.Contains(state, `"stopped"`) {
		t.Errorf("what is left is %s", state)
	}
}

func TestDeleteRemovesCgroupsThatTheContainerMade(t *testing.T) {
	testutil.CgroupV1(t)
	b := newBox(t, forever)
	b.spec.Linux.CgroupsPath = "/" + b.id
	b.start()
	for _, controller := range []string{"memory", "pids", "freezer"} {
		must(t, os.MkdirAll(filepath.Join("/sys/fs/cgroup", controller, b.id, "a/b"), 0o755))
	}
	b.ok("delete", "--force", b.id)
	if left := testutil.Cgroups(b.id); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// An engine may give up on a slow start, or be killed: the container has been started all the same.
func TestStartKilledAmidItsHooksLeavesARunningContainer(t *testing.T) {
	b := newBox(t, "echo > /tmp/program; "+forever)
	b.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo > /tmp/hook; /bin/sleep 2"}}}}
	b.write()
	b.ok("create", b.id)
	start := b.command("start", b.id)
	must(t, start.Start())
	seen := func(name string) func() bool {
		return func() bool {
			_, err := os.Stat(filepath.Join(b.rootfs, "tmp", name))
			return err == nil
		}
	}
	eventually(t, "hook", seen("hook"))
	time.Sleep(200 * time.Millisecond) // start looks every 100 ms
	must(t, start.Process.Kill())
	_ = start.Wait()
	eventually(t, "program", seen("program"))
	if got := b.ok("state", b.id); !strings.Contains(got, `"running"`) {
		t.Errorf("its state: %s", got)
	}
	if got := b.migrate("start", b.id); got.code == 0 || !strings.Contains(got.stderr, "cannot start an already running container") {
		t.Errorf("second start: exit code %d: %s", got.code, got.stderr)
	}
}

func TestStartDoesNotReturnBeforeItsHooks(t *testing.T) {
	b := newBox(t, forever)
	b.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "/bin/sleep 1; echo > /tmp/hook"}}}}
	began := time.Now()
	b.start()
	if _, err := os.Stat(filepath.Join(b.rootfs, "tmp/hook")); err != nil || time.Since(began) < time.Second {
		t.Errorf("it returned after %v: %v", time.Since(began), err)
	}
}
