// Package ptrace makes a thread of another process do system calls, and leaves it as it was:
//
//	1 seize       the thread, not its process; nothing stops yet
//	2 interrupt   it stops where signals are delivered, be it in a program or in a system call
//	3 borrow      registers and signal mask are kept aside, all signals blocked, seccomp suspended
//	4 call        at a syscall instruction that the process has already, stopping before and after it
//	5 give back   it is interrupted once more, so that it stands where it stood; registers and mask are put back; detach
//
// No instruction is written anywhere, and no signal is used: the program's handler of SIGTRAP, or its ignoring it, matters
// to nobody. An interrupted system call is restarted by the kernel as after a signal that has no handler; the few that the
// kernel never restarts (epoll_wait, semop) return EINTR.
//
// x86-64 only.
package ptrace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var (
	// ErrRefused: somebody else traces the thread, or this process may not. Name the tracer (TracerPid in
	// /proc/PID/status), or get CAP_SYS_PTRACE.
	ErrRefused = errors.New("may not be traced")
	// ErrStopped: the process is stopped by a signal (SIGSTOP, or a terminal's). Try again when it was continued.
	ErrStopped = errors.New("stopped by a signal")
	// ErrNoStop: the thread did not stop in time: it waits where no signal reaches it, its cgroup is frozen, or the
	// processors have no time for it. Try another thread, or later.
	ErrNoStop = errors.New("thread does not stop")
	// ErrNotNative: the thread runs 32-bit code.
	ErrNotNative = errors.New("runs 32-bit code")
	// ErrSeccomp: the thread has a seccomp filter, and this process may not suspend it: that takes CAP_SYS_ADMIN, and
	// no filter on this process itself.
	ErrSeccomp = errors.New("its seccomp filter cannot be suspended")
	// ErrDispatch: the thread has its system calls handed back to it (syscall user dispatch, as wine does): a call would be
	// a SIGSYS instead.
	ErrDispatch = errors.New("its system calls are dispatched in user space")
	// ErrCriticalSection: the thread is amid a restartable sequence, which borrowing it would break. Try again.
	ErrCriticalSection = errors.New("amid a restartable sequence")
	// ErrNoInstruction: the process has no syscall instruction that could be found.
	ErrNoInstruction = errors.New("no syscall instruction")
)

// errSignal: the call came to a fault instead of its end: the kernel's code is not what it was a moment ago.
var errSignal = errors.New("call ended in a signal")

// stopTime is how long a thread may take to stop. It runs, or waits, undisturbed meanwhile; on busy processors it has to
// wait for its turn before it can stop.
const stopTime = 500 * time.Millisecond

// Thread is a stopped thread, in the function given to Do and on its goroutine only.
type Thread struct {
	tid         int
	regs        unix.PtraceRegs // as it was
	mask        uint64          // the signals it blocked
	instruction uint64          // the address of a syscall instruction
	unfiltered  bool            // its seccomp filter is suspended
	moved       bool            // it no longer stands where it stood
}

// Do stops thread tid, calls f, and lets the thread go on where it was; f must return, and soon. What f returns is
// returned. os.ErrProcessDone when the thread has ended. Nobody else in this process may wait for the thread's process
// meanwhile (os.Process.Wait): he would be told of the stops in Do's place. Until Do returns the thread's cgroup must not be frozen by
// cgroup v1's freezer: Do would wait until it is thawed, because a thread that is let go amid a call is lost. For the same
// reason ctx ends the waiting for the stop only; and a process that is killed amid Do (0.2 ms) leaves the other in
// disorder.
func Do(ctx context.Context, tid int, f func(*Thread) error) error {
	t := &Thread{tid: tid}
	if err := onThread(func() (bool, error) { return t.do(ctx, f) }); err != nil {
		return fmt.Errorf("trace thread %d: %w", tid, err)
	}
	return nil
}

// onThread runs f on an OS thread of its own, for a tracer is a thread, not a process. Unless f says that the thread is
// clean, that thread ends, by which the kernel detaches whatever it still traces.
func onThread(f func() (clean bool, err error)) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // Go never ends the first thread: occupy it, and take another
			defer runtime.UnlockOSThread()
			done <- onThread(f)
			return
		}
		clean, err := f()
		if clean {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// do reports whether this thread surely traces nothing any more. A thread that seems to have ended may live on: that which
// calls exec gets the number of its process's first thread.
func (t *Thread) do(ctx context.Context, f func(*Thread) error) (clean bool, err error) {
	if err := t.seize(); err != nil {
		return !errors.Is(err, ErrSeccomp), err
	}
	if err := t.interrupt(ctx); err != nil {
		return false, err
	}
	if err := t.borrow(); err != nil {
		return t.detach() == nil, err
	}
	err = f(t)
	if back := t.giveBack(); back != nil {
		return false, errors.Join(err, back)
	}
	return true, err
}

func (t *Thread) seize() error {
	const options = unix.PTRACE_O_TRACESYSGOOD
	err := t.ptrace(unix.PTRACE_SEIZE, 0, options|unix.PTRACE_O_SUSPEND_SECCOMP)
	t.unfiltered = err == 0
	if err == unix.EPERM || err == unix.EINVAL { // the option, or the tracing?
		filtered, readErr := hasSeccomp(t.tid)
		if readErr == nil && filtered {
			if err = t.ptrace(unix.PTRACE_SEIZE, 0, options); err == 0 {
				return ErrSeccomp
			}
		} else {
			err = t.ptrace(unix.PTRACE_SEIZE, 0, options)
		}
	}
	switch err {
	case 0:
		return nil
	case unix.ESRCH:
		return os.ErrProcessDone
	case unix.EPERM:
		if dead(t.tid) { // of which the kernel says the same
			return os.ErrProcessDone
		}
		return ErrRefused
	default:
		return os.NewSyscallError("ptrace(PTRACE_SEIZE)", err)
	}
}

// interrupt stops the thread where signals are delivered. On any error but os.ErrProcessDone it may still be traced.
func (t *Thread) interrupt(ctx context.Context) error {
	if errno := t.ptrace(unix.PTRACE_INTERRUPT, 0, 0); errno != 0 {
		return t.failed("PTRACE_INTERRUPT", errno)
	}
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	for {
		status, err := t.wait(ctx)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return ErrNoStop
		case err != nil:
			return err
		case event(status) == unix.PTRACE_EVENT_STOP && status.StopSignal() != unix.SIGTRAP:
			if errno := t.ptrace(unix.PTRACE_DETACH, 0, 0); errno != 0 {
				return t.failed("PTRACE_DETACH", errno)
			}
			return ErrStopped
		case event(status) == unix.PTRACE_EVENT_STOP:
			return nil
		}
		// A signal came first: it is the thread's own, and our interruption still waits behind it.
		if errno := t.ptrace(unix.PTRACE_CONT, 0, uintptr(status.StopSignal())); errno != 0 {
			return t.failed("PTRACE_CONT", errno)
		}
	}
}

// borrow keeps aside what giveBack puts back.
func (t *Thread) borrow() error {
	if err := unix.PtraceGetRegs(t.tid, &t.regs); err != nil {
		return os.NewSyscallError("ptrace(PTRACE_GETREGS)", err)
	}
	const userCS = 0x33 // __USER_CS (arch/x86/include/asm/segment.h); 32-bit code has 0x23
	if t.regs.Cs != userCS {
		return ErrNotNative
	}
	if err := t.callable(); err != nil {
		return err
	}
	var err error
	if t.instruction, err = findInstruction(t.tid, t.regs.Rip); err != nil {
		return err
	}
	if errno := t.ptrace(unix.PTRACE_GETSIGMASK, unsafe.Sizeof(t.mask), uintptr(unsafe.Pointer(&t.mask))); errno != 0 {
		return t.failed("PTRACE_GETSIGMASK", errno)
	}
	return t.setMask(^uint64(0))
}

// Call does one system call in the thread and returns its result; the error is the kernel's to the thread, a plain
// unix.Errno, or os.ErrProcessDone.
func (t *Thread) Call(number uintptr, args ...uint64) (uint64, error) {
	regs := t.regs
	regs.Rip, regs.Rax = t.instruction, uint64(number)
	regs.Orig_rax = ^uint64(0) // no interrupted call to restart, for now
	for i, arg := range args {
		*[]*uint64{&regs.Rdi, &regs.Rsi, &regs.Rdx, &regs.R10, &regs.R8, &regs.R9}[i] = arg
	}
	t.moved = true
	if err := unix.PtraceSetRegs(t.tid, &regs); err != nil {
		return 0, os.NewSyscallError("ptrace(PTRACE_SETREGS)", err)
	}
	const syscallStop = unix.SIGTRAP | 0x80 // PTRACE_O_TRACESYSGOOD
	for range 2 {                           // into the call, and out of it
		if err := t.run(unix.PTRACE_SYSCALL, syscallStop); err != nil {
			return 0, err
		}
	}
	if err := unix.PtraceGetRegs(t.tid, &regs); err != nil {
		return 0, os.NewSyscallError("ptrace(PTRACE_GETREGS)", err)
	}
	const maxErrno = 4095
	if negated := -regs.Rax; negated != 0 && negated <= maxErrno {
		return 0, unix.Errno(negated)
	}
	return regs.Rax, nil
}

// giveBack makes the thread stand where signals are delivered again: only there does the kernel look whether the call that
// was interrupted at first is to be restarted.
func (t *Thread) giveBack() error {
	if t.moved {
		if err := t.run(unix.PTRACE_CONT, 0); err != nil {
			return err
		}
	}
	if err := unix.PtraceSetRegs(t.tid, &t.regs); err != nil {
		return os.NewSyscallError("ptrace(PTRACE_SETREGS)", err)
	}
	if err := t.setMask(t.mask); err != nil {
		return err
	}
	return t.detach()
}

// run lets the thread go on to the next system call's stop, or, with PTRACE_CONT, no further than to where signals are
// delivered. SIGSTOP, which cannot be blocked, stops the process, but not this thread of it before it is let go.
func (t *Thread) run(request int, wanted unix.Signal) error {
	var deliver unix.Signal
	for {
		if request == unix.PTRACE_CONT { // each time anew: any stop uses an interruption up
			if errno := t.ptrace(unix.PTRACE_INTERRUPT, 0, 0); errno != 0 {
				return t.failed("PTRACE_INTERRUPT", errno)
			}
		}
		if errno := t.ptrace(request, 0, uintptr(deliver)); errno != 0 {
			return t.failed("continue", errno)
		}
		deliver = 0
		status, err := t.wait(context.Background())
		switch stop := event(status) == unix.PTRACE_EVENT_STOP; {
		case err != nil:
			return err
		case stop && request == unix.PTRACE_CONT, !stop && status.StopSignal() == wanted:
			return nil
		case stop: // the process is being stopped: not yet, for this thread
		case status.StopSignal() == unix.SIGSTOP:
			deliver = unix.SIGSTOP
		case request == unix.PTRACE_SYSCALL:
			return fmt.Errorf("%w: %s", errSignal, unix.SignalName(status.StopSignal()))
		}
	}
}

// wait returns how the thread stopped. A look costs half a microsecond, and a stop takes some ten.
func (t *Thread) wait(ctx context.Context) (unix.WaitStatus, error) {
	const longest = time.Millisecond
	for pause := 10 * time.Microsecond; ; pause = min(2*pause, longest) {
		var status unix.WaitStatus
		pid, err := unix.Wait4(t.tid, &status, unix.WNOHANG|unix.WALL, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return 0, os.ErrProcessDone
		case err != nil && !errors.Is(err, unix.EINTR):
			return 0, os.NewSyscallError("wait4", err)
		case pid == t.tid && !status.Stopped():
			return 0, os.ErrProcessDone
		case pid == t.tid:
			return status, nil
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		time.Sleep(pause)
	}
}

func (t *Thread) detach() error {
	if errno := t.ptrace(unix.PTRACE_DETACH, 0, 0); errno != 0 {
		return t.failed("PTRACE_DETACH", errno)
	}
	return nil
}

func (t *Thread) setMask(mask uint64) error {
	if errno := t.ptrace(unix.PTRACE_SETSIGMASK, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask))); errno != 0 {
		return t.failed("PTRACE_SETSIGMASK", errno)
	}
	return nil
}

func (t *Thread) ptrace(request int, addr, data uintptr) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(t.tid), addr, data, 0, 0)
	return errno
}

func (t *Thread) failed(request string, errno unix.Errno) error {
	if errno == unix.ESRCH {
		return os.ErrProcessDone
	}
	return os.NewSyscallError("ptrace("+request+")", errno)
}

// event is PTRACE_EVENT_*, 0 for a stop by a signal or at a system call.
func event(status unix.WaitStatus) int { return int(status) >> 16 }
