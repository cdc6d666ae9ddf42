package ptrace_test

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/sys/ptrace"
	"github.com/livemigrate/migrate/internal/testutil"
)

// TestThreadGoesOnAsItWas: what it waited in is restarted, and sees nothing of the calls.
func TestThreadGoesOnAsItWas(t *testing.T) {
	testutil.Root(t)
	sleep := exec.Command("sleep", "1")
	started := time.Now()
	start(t, sleep)
	for range 20 {
		if err := ptrace.Do(t.Context(), sleep.Process.Pid, func(thread *ptrace.Thread) error {
			if pid, err := thread.Call(unix.SYS_GETPID); err != nil || int(pid) != sleep.Process.Pid {
				t.Errorf("getpid: %d, %v", pid, err)
			}
			if _, err := thread.Call(unix.SYS_CLOSE, 1<<20); !errors.Is(err, unix.EBADF) {
				t.Errorf("close: %v", err)
			}
			if zero, err := thread.Call(unix.SYS_ALARM, 0); err != nil || zero != 0 {
				t.Errorf("alarm: %d, %v", zero, err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := sleep.Wait(); err != nil || time.Since(started) < time.Second {
		t.Errorf("slept %v, %v", time.Since(started), err)
	}
}

// TestBusyThread: one that is always in its program, with signals coming in all the time.
func TestBusyThread(t *testing.T) {
	testutil.Root(t)
	busy := exec.Command("sh", "-c", `n=0; trap 'n=$((n+1))' USR1; while [ $n -lt 200 ]; do :; done`)
	start(t, busy)
	done := make(chan error, 1)
	go func() { done <- busy.Wait() }()
	for n := 0; ; n++ {
		select {
		case err := <-done:
			if err != nil || n == 0 {
				t.Errorf("after %d calls: %v", n, err)
			}
			return
		default:
		}
		_ = busy.Process.Signal(unix.SIGUSR1)
		err := ptrace.Do(t.Context(), busy.Process.Pid, func(thread *ptrace.Thread) error {
			_, err := thread.Call(unix.SYS_GETPID)
			return err
		})
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
	}
}

func TestDoRefuses(t *testing.T) {
	testutil.Root(t)
	nothing := func(*ptrace.Thread) error { return nil }
	if err := ptrace.Do(t.Context(), 1<<22, nothing); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("no process: %v", err)
	}
	sleep := exec.Command("sleep", "60")
	start(t, sleep)
	if err := ptrace.Do(t.Context(), sleep.Process.Pid, func(*ptrace.Thread) error {
		if err := ptrace.Do(t.Context(), sleep.Process.Pid, nothing); !errors.Is(err, ptrace.ErrRefused) {
			t.Errorf("traced already: %v", err)
		}
		return errors.ErrUnsupported
	}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("the error of the function: %v", err)
	}
	if err := sleep.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, sleep.Process.Pid, &info, unix.WSTOPPED, nil); err != nil {
		t.Fatal(err)
	}
	if err := ptrace.Do(t.Context(), sleep.Process.Pid, nothing); !errors.Is(err, ptrace.ErrStopped) {
		t.Errorf("stopped: %v", err)
	}
}

// start starts a program and waits until it is that.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	time.Sleep(50 * time.Millisecond)
}
