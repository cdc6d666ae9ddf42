package process_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

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

func TestOnlyTheSameProcessIsAlive(t *testing.T) {
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Wait() }()
	pid := child.Process.Pid
	start, err := process.StartTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	if !process.Alive(pid, start) {
		t.Error("a live process is not alive")
	}
	if process.Alive(pid, start+1) || process.Alive(0, start) || process.Alive(1<<22, start) {
		t.Error("another process is alive, or none")
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Not reaped: a zombie, within a moment.
	for range 500 {
		if !process.Alive(pid, start) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if now, err := process.StartTime(pid); err != nil || now != start || process.Alive(pid, start) {
		t.Errorf("a zombie that started at %d, not %d, is alive; error %v", now, start, err)
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
