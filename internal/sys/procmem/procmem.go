// Package procmem reads the memory of other processes.
package procmem

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// MaxVectors is how many vectors one Call takes. The kernel's limit is 1024 (UIO_MAXIOV).
const MaxVectors = 512

var (
	// ErrGone: the process has ended, or is a zombie: it has no memory any more.
	ErrGone = errors.New("process has no memory any more")
	// ErrUnreadable: nothing is mapped at the first address to be read, or it is not readable that way.
	ErrUnreadable = errors.New("memory not readable")
)

// Call is one process_vm_readv(2). It is used again and again, so that reading allocates nothing; one goroutine at a time.
type Call struct {
	local  [1]unix.Iovec
	remote []unix.RemoteIovec
}

// Reset takes all vectors out.
func (c *Call) Reset() { c.remote = c.remote[:0] }

// Len is the number of vectors.
func (c *Call) Len() int { return len(c.remote) }

// Add appends a vector. The caller keeps to MaxVectors.
func (c *Call) Add(addr uint64, bytes int) {
	c.remote = append(c.remote, unix.RemoteIovec{Base: uintptr(addr), Len: bytes})
}

// Read fills buf from the vectors, in their order, and returns how many bytes it got. Fewer than asked for is no error: what
// comes next is not readable, or the kernel stopped early. It works where the caller may ptrace the process (see
// ptrace(2), PTRACE_MODE_ATTACH_REALCREDS), whether that runs or not. Pages that were never touched are populated by
// reading them. Errors wrap ErrGone and ErrUnreadable; with both nothing was read.
func (c *Call) Read(pid int, buf []byte) (int, error) {
	if len(buf) == 0 || len(c.remote) == 0 {
		return 0, nil
	}
	c.local[0].Base = &buf[0]
	c.local[0].SetLen(len(buf))
	n, err := unix.ProcessVMReadv(pid, c.local[:], c.remote, 0)
	c.local[0].Base = nil
	switch {
	case errors.Is(err, unix.ESRCH):
		return 0, fmt.Errorf("read memory of process %d: %w", pid, ErrGone)
	case errors.Is(err, unix.EFAULT):
		return 0, fmt.Errorf("read memory of process %d at %#x: %w", pid, c.remote[0].Base, ErrUnreadable)
	case err != nil:
		return 0, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	return n, nil
}

// Forced reads what a Call may not: areas without the right to read (PROT_NONE), which a debugger sees all the same. It
// is a file of /proc, bound to the memory that the process had when it was opened.
type Forced struct {
	file *os.File
	pid  int
}

// Force opens the memory of a process. The caller closes it.
func Force(pid int) (*Forced, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("open memory of process %d: %w", pid, ErrGone)
	}
	if err != nil {
		return nil, fmt.Errorf("open memory of process %d: %w", pid, err)
	}
	return &Forced{file: file, pid: pid}, nil
}

// Read fills buf from addr on, or fails: with ErrUnreadable where nothing is mapped (or a guard page is), with ErrGone when the
// process has ended.
func (f *Forced) Read(addr uint64, buf []byte) error {
	_, err := f.file.ReadAt(buf, int64(addr))
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, unix.ESRCH):
		return fmt.Errorf("read memory of process %d: %w", f.pid, ErrGone)
	case errors.Is(err, unix.EIO), errors.Is(err, unix.EFAULT):
		return fmt.Errorf("read memory of process %d at %#x: %w", f.pid, addr, ErrUnreadable)
	case err != nil:
		return fmt.Errorf("read memory of process %d: %w", f.pid, err)
	}
	return nil
}

// Close closes the file.
func (f *Forced) Close() error { return f.file.Close() }
