package preflight

import (
	"os/exec"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/testutil"
)

func TestLimitsOfAnotherUsersProcess(t *testing.T) {
	testutil.Root(t)
	own, err := process.Effective()
	if err != nil {
		t.Fatal(err)
	}
	start := func(user uint32) int {
		cmd := exec.CommandContext(t.Context(), "sleep", "100")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		return cmd.Process.Pid
	}
	theirs := start(4711)
	found := judgeLimits("/usr/sbin/criu", []int{start(0), theirs, 1 << 22})
	if own.Has(process.SysResource) {
		if len(found) != 0 {
			t.Errorf("found %v", found)
		}
		return
	}
	if len(found) != 1 || !has(found, Blocker, ForeignLimits) || found[0].Pid != theirs || found[0].Process != "sleep" {
		t.Errorf("found %v", found)
	}
}
