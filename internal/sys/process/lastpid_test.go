package process_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/testutil"
)

func TestNextPidFollowsTheLast(t *testing.T) {
	testutil.Root(t)
	// The first process of a namespace of its own says the pid of each child that it is asked for.
	first := exec.Command("sh", "-c", `while read -r _; do sh -c 'echo $$'; done`)
	first.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	ask, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	first.Stdout, first.Stderr = &out, os.Stderr
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := process.SetLastPid(first.Process.Pid, 300); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ask.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	ask.Close()
	if err := first.Wait(); err != nil {
		t.Fatal(err)
	}
	if out.String() != "301\n" {
		t.Errorf("the next pid is %q, want 301", out.String())
	}
	if err := process.SetLastPid(1<<22, 300); err == nil {
		t.Error("a process that is none has a namespace")
	}
}
