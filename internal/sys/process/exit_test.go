package process_test

import (
	"os/exec"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/process"
)

func TestChildExit(t *testing.T) {
	for script, want := range map[string]process.Exit{"exit 3": process.Exited, "kill -9 $$": process.Killed} {
		child := exec.Command("sh", "-c", "read -r _; "+script)
		in, err := child.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		if got, err := process.ChildExit(child.Process.Pid); got != process.Lives || err != nil {
			t.Errorf("%s: before it ends: %v, %v", script, got, err)
		}
		in.Close()
		got := process.Lives
		for range 1000 {
			if got, err = process.ChildExit(child.Process.Pid); got != process.Lives || err != nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if got != want || err != nil {
			t.Errorf("%s: %v, %v", script, got, err)
		}
		_ = child.Wait()
		if _, err := process.ChildExit(child.Process.Pid); err == nil {
			t.Errorf("%s: it can be looked at after it was reaped", script)
		}
	}
}
