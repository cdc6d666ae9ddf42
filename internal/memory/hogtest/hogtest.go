// Package hogtest runs a process whose memory is known byte for byte, for tests of the memory engine. It is the test's own
// program, started again.
package hogtest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/livemigrate/migrate/internal/memory"
)

const variable = "MIGRATE_TEST_HOG"

// Main is called first in TestMain: in the hog it does not return.
func Main() {
	if os.Getenv(variable) == "" {
		return
	}
	if err := serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Kind is what a page is filled with.
type Kind string

// The kinds of pages. What is random differs from page to page, and with the seed.
const (
	Random Kind = "random"
	Zeros  Kind = "zeros"
	Half   Kind = "half" // every other line of 64 bytes is zero, the others random
	Text   Kind = "text" // compresses well, without zero words
	Equal  Kind = "equal"
)

// Page fills one page as the hog does for this kind, seed and address.
func Page(page []byte, kind Kind, seed, addr uint64) {
	x := seed*0x9e3779b97f4a7c15 ^ addr*0xbf58476d1ce4e5b9 ^ 0x94d049bb133111eb
	if kind == Equal {
		x = seed*0x9e3779b97f4a7c15 | 1
	}
	for i := 0; i < len(page); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		w := x
		switch {
		case kind == Zeros, kind == Half && i/64%2 == 0:
			w = 0
		case kind == Text:
			w = 0x6867666564636261 + x&0x0303
		}
		binary.LittleEndian.PutUint64(page[i:], w)
	}
}

// Hog is the process. It ends with the test.
type Hog struct {
	Pid int

	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// Start runs a hog.
func Start(t testing.TB) *Hog {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), variable+"=1", "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &Hog{Pid: cmd.Process.Pid, t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(h.Stop)
	return h
}

// Stop ends the hog, and waits until it is gone.
func (h *Hog) Stop() {
	if h.cmd.ProcessState != nil {
		return
	}
	_ = h.in.Close()
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
}

// Map gives the hog private anonymous memory, without anything in it.
func (h *Hog) Map(pages uint64) memory.Range {
	h.t.Helper()
	var start uint64
	if _, err := fmt.Sscan(h.do("map 0 %d - 0", pages), &start); err != nil {
		h.t.Fatal(err)
	}
	return memory.Range{Start: start, Pages: pages}
}

// Fill makes the hog write its memory.
func (h *Hog) Fill(r memory.Range, kind Kind, seed uint64) {
	h.t.Helper()
	h.do("fill %d %d %s %d", r.Start, r.Pages, kind, seed)
}

// Unmap makes the hog unmap a range.
func (h *Hog) Unmap(r memory.Range) {
	h.t.Helper()
	h.do("unmap %d %d - 0", r.Start, r.Pages)
}

// Hide makes a range unreadable for the hog itself (PROT_NONE); its content stays.
func (h *Hog) Hide(r memory.Range) {
	h.t.Helper()
	h.do("hide %d %d - 0", r.Start, r.Pages)
}

// Fork has the hog fork a child, which does nothing and ends with it.
func (h *Hog) Fork() {
	h.t.Helper()
	h.do("fork 0 0 - 0")
}

func (h *Hog) do(format string, args ...any) string {
	h.t.Helper()
	if _, err := fmt.Fprintf(h.in, format+"\n", args...); err != nil {
		h.t.Fatal(err)
	}
	answer, err := h.out.ReadString('\n')
	if err != nil || !strings.HasPrefix(answer, "ok ") {
		h.t.Fatalf("the hog says %q, %v", answer, err)
	}
	return strings.TrimSpace(answer[3:])
}

// serve is the hog: a line a command, a line an answer.
func serve(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var verb, kind string
		var addr, pages, seed uint64
		if _, err := fmt.Sscan(lines.Text(), &verb, &addr, &pages, &kind, &seed); err != nil {
			return err
		}
		size := uintptr(pages * memory.PageSize)
		var errno syscall.Errno
		var result uintptr
		switch verb {
		case "map":
			result, _, errno = syscall.Syscall6(syscall.SYS_MMAP, 0, size, syscall.PROT_READ|syscall.PROT_WRITE,
				syscall.MAP_PRIVATE|syscall.MAP_ANON, ^uintptr(0), 0)
		case "unmap":
			_, _, errno = syscall.Syscall(syscall.SYS_MUNMAP, uintptr(addr), size, 0)
		case "hide":
			_, _, errno = syscall.Syscall(syscall.SYS_MPROTECT, uintptr(addr), size, syscall.PROT_NONE)
		case "fork":
			errno = fork()
		case "fill":
			for i := range pages {
				at := addr + i*memory.PageSize
				Page(at4096(at), Kind(kind), seed, at)
			}
		default:
			return errors.New("unknown command " + verb)
		}
		if errno != 0 {
			return fmt.Errorf("%s: %w", lines.Text(), errno)
		}
		if _, err := fmt.Fprintf(out, "ok %d\n", result); err != nil {
			return err
		}
	}
	return lines.Err()
}

// at4096 is the page at an address that this process has mapped itself, outside of Go's heap.
func at4096(addr uint64) []byte {
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&addr)), memory.PageSize)
}

// fork: in the child nothing may run that needs Go's scheduler.
//
//go:nosplit
//go:norace
func fork() syscall.Errno {
	child, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || child != 0 {
		return errno
	}
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0)
	for {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}
