package preflight

import (
	"fmt"
	"os/exec"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/internal/testutil"
)

// What push waits for before it does anything: `go test -bench Scan ./internal/preflight`.
func BenchmarkScan(b *testing.B) {
	testutil.Root(b)
	for _, count := range []int{1, 10, 500} {
		b.Run(fmt.Sprintf("%d processes", count), func(b *testing.B) {
			var pids []int
			for range count {
				cmd := exec.CommandContext(b.Context(), "sleep", "600")
				cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
				if err := cmd.Start(); err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() {
					_ = cmd.Process.Kill()
					_ = cmd.Wait()
				})
				pids = append(pids, cmd.Process.Pid)
			}
			for b.Loop() {
				if needs, _, err := Scan(b.Context(), &Subject{Pids: pids, Init: pids[0]}); err != nil || needs.Processes != count {
					b.Fatal(needs, err)
				}
			}
		})
	}
}
