package process_test

import (
	"context"
	"errors"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/testutil"
)

func TestUntracedIsWaitedFor(t *testing.T) {
	testutil.Root(t)
	sleeper := exec.Command("sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = sleeper.Process.Kill()
		_ = sleeper.Wait()
	}()
	list := func() ([]int, error) { return []int{sleeper.Process.Pid}, nil }
	traced, leave, left := make(chan error), make(chan bool), make(chan error)
	go func() {
		runtime.LockOSThread() // the tracer is a thread
		traced <- syscall.PtraceAttach(sleeper.Process.Pid)
		<-leave
		_, err := syscall.Wait4(sleeper.Process.Pid, nil, syscall.WALL, nil)
		left <- errors.Join(err, syscall.PtraceDetach(sleeper.Process.Pid))
	}()
	if err := <-traced; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := process.AwaitUntraced(ctx, list); !errors.Is(err, process.ErrTraced) {
		t.Errorf("got %v, want ErrTraced", err)
	}
	leave <- true
	if err := <-left; err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := process.AwaitUntraced(ctx, list); err != nil {
		t.Error(err)
	}
}
