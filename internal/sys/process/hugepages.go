package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// smallPages is held while this process goes without huge pages: there is one such switch, and it is the process's.
var smallPages sync.Mutex

// WithSmallPages calls start while the kernel gives this process no transparent huge pages, which a process that is started then
// inherits, and keeps over exec. Linux 3.15.
func WithSmallPages(start func() error) error {
	smallPages.Lock()
	defer smallPages.Unlock()
	was, err := unix.PrctlRetInt(unix.PR_GET_THP_DISABLE, 0, 0, 0, 0)
	if err != nil {
		return os.NewSyscallError("prctl(PR_GET_THP_DISABLE)", err)
	}
	if was != 0 {
		return start()
	}
	if err := setSmallPages(1); err != nil {
		return err
	}
	return errors.Join(start(), setSmallPages(0))
}

func setSmallPages(on uintptr) error {
	return os.NewSyscallError("prctl(PR_SET_THP_DISABLE)", unix.Prctl(unix.PR_SET_THP_DISABLE, on, 0, 0, 0))
}

// HugePages tells whether the kernel may give a process transparent huge pages. Before Linux 5.0 it does not tell: no.
func HugePages(pid int) (bool, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return bytes.Contains(text, []byte("\nTHP_enabled:\t1\n")), err
}
