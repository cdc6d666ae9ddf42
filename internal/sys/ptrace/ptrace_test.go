package ptrace_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

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
	inCall(t, sleep.Process.Pid, unix.SYS_CLOCK_NANOSLEEP)
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
		}); errors.Is(err, os.ErrProcessDone) && time.Since(started) > time.Second {
			break // a slow machine
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := sleep.Wait(); err != nil || time.Since(started) < time.Second {
		t.Errorf("slept %v, %v", time.Since(started), err)
	}
}

// TestSignalsReachTheProgram: a thread that is always in its program, with signals coming in at any moment: its own, and
// those that stop the whole of it. Each arrives, and the program counts right.
func TestSignalsReachTheProgram(t *testing.T) {
	testutil.Root(t)
	for name, signals := range map[string][]unix.Signal{"handled": {unix.SIGUSR1}, "stopped": {unix.SIGSTOP, unix.SIGCONT, unix.SIGUSR1}} {
		t.Run(name, func(t *testing.T) {
			busy := exec.Command("sh", "-c", `n=0; trap 'n=$((n+1))' USR1; echo ready; sum=0
				while [ $n -lt 200 ]; do i=0; while [ $i -lt 50 ]; do i=$((i+1)); done; sum=$((sum+i)); done; echo $((sum%50)) is right`)
			out, err := busy.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			start(t, busy)
			lines := bufio.NewReader(out)
			if line, err := lines.ReadString('\n'); line != "ready\n" {
				t.Fatalf("%q, %v", line, err)
			}
			pid := busy.Process.Pid
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for n := 0; !ended(pid) && unix.Kill(pid, signals[n%len(signals)]) == nil; n++ {
					time.Sleep(time.Duration(n%7) * 100 * time.Microsecond)
				}
			}()
			for range 300 {
				err := ptrace.Do(t.Context(), pid, func(thread *ptrace.Thread) error {
					_, err := thread.Call(unix.SYS_GETPID)
					return err
				})
				if errors.Is(err, os.ErrProcessDone) {
					break
				}
				if err != nil && !errors.Is(err, ptrace.ErrStopped) {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond) // or it is stopped again before it did anything
			}
			<-sent
			// Its exit status is whose who waited first: Do's, or ours.
			if line, err := lines.ReadString('\n'); line != "0 is right\n" {
				t.Errorf("%q, %v", line, err)
			}
		})
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

// TestDispatchedCallsAreLeftAlone: a program that has its system calls handed back to it would get a SIGSYS for ours.
func TestDispatchedCallsAreLeftAlone(t *testing.T) {
	testutil.Root(t)
	var config [4]uint64
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, 1, unsafe.Sizeof(config),
		uintptr(unsafe.Pointer(&config)), 0, 0)
	if errno == unix.EIO {
		return // a kernel that has no such question, before 6.4
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dispatched := exec.Command(self)
	dispatched.Env = append(os.Environ(), dispatchVariable+"=1")
	out, err := dispatched.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, dispatched)
	var tid int
	if _, err := fmt.Fscan(out, &tid); err != nil {
		t.Fatal(err)
	}
	if err := ptrace.Do(t.Context(), tid, func(*ptrace.Thread) error { return nil }); !errors.Is(err, ptrace.ErrDispatch) {
		t.Errorf("dispatched: %v", err)
	}
	if ended(dispatched.Process.Pid) {
		t.Error("it has ended")
	}
}

const dispatchVariable = "PTRACE_TEST_DISPATCH"

// TestMain makes the test program, where it is told so, one with a thread of which TestDispatchedCallsAreLeftAlone speaks.
func TestMain(m *testing.M) {
	if os.Getenv(dispatchVariable) == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	const on, everywhere = 1, 1 << 47 // calls from everywhere are let through, as it is
	if err := unix.Prctl(unix.PR_SET_SYSCALL_USER_DISPATCH, on, 0, everywhere, 0); err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stdout, unix.Gettid())
	for {
		_ = unix.Pause()
	}
}

// start starts a program.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// inCall waits until the process waits in a system call.
func inCall(t *testing.T, pid, number int) {
	t.Helper()
	for range 5000 {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(text), strconv.Itoa(number)+" ") {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("process %d does not call %d", pid, number)
}

// ended: the process is there no more, but for its number. Stops by the tracer are told of as well.
func ended(pid int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	const exited, dumped = 1, 3 // CLD_EXITED to CLD_DUMPED
	return err != nil || exited <= info.Code && info.Code <= dumped
}
