//go:build (amd64 || arm64) && cgo

package limits_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/limits"
	"github.com/livemigrate/migrate/internal/testutil"
)

// What CDLL(None) finds is what the program would call.
const ask = `
import ctypes, sys
number, pid, resource = map(int, sys.argv[1:4])
libc = ctypes.CDLL(None, use_errno=True)
limit = (ctypes.c_ulong * 2)()
r = libc.syscall(ctypes.c_long(number), ctypes.c_long(pid), ctypes.c_long(resource), None, limit)
print(r, limit[0], limit[1], ctypes.get_errno() if r else 0, "migrate-limits" in open("/proc/self/maps").read())
`

func TestLimitsOfAnotherUsersProcessAreRead(t *testing.T) {
	testutil.Root(t)
	python, err := exec.LookPath("python3")
	testutil.Need(t, err == nil, "python3")
	library, err := limits.Library()
	if err != nil {
		t.Fatal(err)
	}
	defer library.Close()

	other := exec.CommandContext(t.Context(), "sh", "-c", "ulimit -n 333; ulimit -S -c 0; ulimit -S -t 4000; exec sleep 100")
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4711, Gid: 4711}}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	})
	prlimit := map[string]int{"amd64": 302, "arm64": 261}[runtime.GOARCH]
	asked := func(number, pid, resource int) string {
		t.Helper()
		// Without the capability, on hosts that have it too.
		cmd := exec.CommandContext(t.Context(), "setpriv", "--bounding-set", "-sys_resource", python, "-c", ask, fmt.Sprint(number), fmt.Sprint(pid),
			fmt.Sprint(resource))
		cmd.Env = append(os.Environ(), fmt.Sprintf("LD_PRELOAD=/proc/%d/fd/%d", os.Getpid(), library.Fd()))
		said, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		return strings.TrimSpace(string(said))
	}
	for resource, want := range map[int]string{
		syscall.RLIMIT_NOFILE: "0 333 333 0 True",
		syscall.RLIMIT_CPU:    fmt.Sprintf("0 4000 %d 0 True", ^uint64(0)),
		99:                    "-1 0 0 1 True", // EPERM stays
	} {
		if got := asked(prlimit, other.Process.Pid, resource); got != want {
			t.Errorf("resource %d: %q, want %q", resource, got, want)
		}
	}
	if got, want := asked(prlimit, 1<<22+1, 7), "-1 0 0 3 True"; got != want { // ESRCH
		t.Errorf("no process: %q, want %q", got, want)
	}
}
