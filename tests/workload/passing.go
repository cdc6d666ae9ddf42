package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func (k *kinds) job(who int) *job {
	return &job{
		areas: k.areas, who: who, report: &k.reports[who],
		random: rand.Uint64() | 1, naps: 1 + rand.IntN(4), nap: int64(time.Millisecond) * (1 + rand.Int64N(100)),
	}
}

// start forks a child. The areas are at rest.
func (k *kinds) start(j *job) (int, error) {
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	pid, errno := j.fork()
	if errno != 0 {
		return 0, os.NewSyscallError("clone", errno)
	}
	return pid, nil
}

// reap waits for a child that Go knows nothing of. It is an error if it did not end with 0.
func reap(pid int) error {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("wait4", err)
		case status.Signaled():
			return fmt.Errorf("ended by %s", status.Signal())
		case status.ExitStatus() != 0:
			return fmt.Errorf("exit status %d", status.ExitStatus())
		default:
			return nil
		}
	}
}

// keepForking has one child after the other.
func (k *kinds) keepForking(who int) {
	for {
		k.mu.Lock()
		pid, err := k.start(k.job(who))
		k.mu.Unlock()
		if err == nil {
			if err = reap(pid); err != nil {
				err = errors.Join(err, k.tell(who))
			}
		}
		if err != nil {
			k.fail(fmt.Errorf("a forked child: %w", err))
			return
		}
	}
}

// comeAndGo starts children all the time, by vfork: one may be just born, or just dead, when the tree is frozen.
func comeAndGo(fail func(error)) {
	for {
		if err := exec.Command("/proc/self/exe", "true").Run(); err != nil {
			fail(fmt.Errorf("short-lived child: %w", err))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// heirs are the programs that one process was, one after the other.
type heirs struct {
	mu     sync.Mutex
	last   uint64
	since  time.Time
	failed error
}

// startHeirs starts the first. Each says its number once its memory was right to its end.
func (k *kinds) startHeirs() error {
	cmd := command("heir", "1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	k.heirs.since = time.Now()
	go k.heirs.listen(out)
	return cmd.Start()
}

func (h *heirs) listen(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		n, err := strconv.ParseUint(lines.Text(), 10, 64)
		h.mu.Lock()
		if err != nil || n != h.last+1 {
			h.failed = fmt.Errorf("after heir %d comes %q", h.last, lines.Text())
		}
		h.last, h.since = n, time.Now()
		h.mu.Unlock()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = errors.Join(h.failed, fmt.Errorf("there is none after heir %d", h.last))
}

func (h *heirs) check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if quiet := time.Since(h.since); h.failed == nil && quiet > time.Minute {
		return fmt.Errorf("nothing is heard of an heir since %d, for %s", h.last, quiet)
	}
	return h.failed
}

// heir is the n-th: it has memory of its own, verifies it until it has lived long enough, and execs the next.
func heir(n uint64) error {
	const pages = 512
	memory, err := unix.MmapPtr(-1, 0, nil, pages*pageSize, readWrite, private)
	if err != nil {
		return err
	}
	a := area{kind: "heir", number: n, base: memory, versions: make([]uint32, pages), prot: readWrite}
	for i := range a.versions {
		a.write(i)
	}
	for range 1 + rand.IntN(10) {
		time.Sleep(20 * time.Millisecond)
		a.write(rand.IntN(pages))
		if f := new(fault); !a.right(parent, f) {
			fmt.Println("heir", n, "has", a.tell(f, parent))
			return nil
		}
	}
	fmt.Println(n)
	self := "/proc/self/exe"
	return syscall.Exec(self, []string{os.Args[0], "member", "heir", strconv.FormatUint(n+1, 10)}, os.Environ())
}

// stackPages of a thread's stack are verified.
const stackPages = 12

// stackThread runs a thread of its own with a pattern on its stack, written anew and verified for each number it is asked;
// it answers the number, or 0 where the stack is wrong.
func stackThread() chan uint64 {
	c := make(chan uint64)
	go func() {
		runtime.LockOSThread()
		var stack [stackPages]page
		last := uint64(0)
		fillStack(&stack, last)
		for number := range c {
			ok := stackIs(&stack, last)
			last = number
			fillStack(&stack, last)
			if !ok {
				number = 0
			}
			c <- number
		}
	}()
	return c
}

func fillStack(stack *[stackPages]page, version uint64) {
	for i := range stack {
		stack[i].fill(uint64(i)+1, version)
	}
}

func stackIs(stack *[stackPages]page, version uint64) bool {
	for i := range stack {
		if at, _ := stack[i].wrong(uint64(i)+1, version); at >= 0 {
			return false
		}
	}
	return true
}

func (k *kinds) checkThreads() error {
	k.asked++
	for i, thread := range k.threads {
		thread <- k.asked
		if got := <-thread; got != k.asked {
			return fmt.Errorf("the stack of thread %d is wrong", i)
		}
	}
	return nil
}

// passThreads has threads that end; what they have on their stacks is verified before.
func (k *kinds) passThreads() {
	for n := uint64(1); ; n++ {
		ended := make(chan bool)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			var stack [stackPages]page
			fillStack(&stack, n)
			time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
			ended <- stackIs(&stack, n)
		}()
		if !<-ended {
			k.fail(fmt.Errorf("the stack of thread %d that ended is wrong", n))
		}
	}
}
