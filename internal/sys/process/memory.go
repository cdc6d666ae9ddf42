package process

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// CompareMemory orders processes by their address space (kcmp(2), Linux 3.5, CONFIG_KCMP): 0 when both have the same one,
// as after vfork, else -1 or 1, which is an order as long as both live. It takes the right to trace both.
func CompareMemory(a, b int) (int, error) {
	const kcmpVM = 1
	result, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kcmpVM, 0, 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("compare memory of processes %d and %d: %w", a, b, os.NewSyscallError("kcmp", errno))
	}
	return [...]int{0: 0, 1: -1, 2: 1, 3: 1}[result&3], nil
}

// HasMemory tells whether a process has an address space. One that ends gives it up some time before it can be waited for.
func HasMemory(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	return err == nil && len(text) > 0 && !bytes.HasPrefix(text, []byte("0 "))
}
