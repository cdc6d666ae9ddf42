package process_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/process"
)

func TestStartTimeTellsProcessesApart(t *testing.T) {
	mine, err := process.StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	again, err := process.StartTime(os.Getpid())
	if err != nil || again != mine {
		t.Errorf("%d, then %d, %v", mine, again, err)
	}
	first, err := process.StartTime(1)
	if err != nil || first > mine {
		t.Errorf("process 1 started at %d, this one at %d, %v", first, mine, err)
	}
	if _, err := process.StartTime(1 << 22); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("no process: %v", err)
	}
}

func TestStartTimeOfAProgramWithAStrangeName(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "a) 1 2 (")
	if err := os.Symlink(sleep, name); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(name, "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	got, err := process.StartTime(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := process.StartTime(os.Getpid())
	if err != nil || got < mine || got > mine+100*60 {
		t.Errorf("the child started at %d, its parent at %d, %v", got, mine, err)
	}
}
