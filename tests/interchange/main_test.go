// Package interchange tests checkpoint and restore on real containers: through the packages, through the program, and
// to and from Debian's runc.
package interchange

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/runtime"
)

// inside is set in the second run of the test program, to a directory that goes with it.
const inside = "INTERCHANGE_INSIDE"

// TestMain is the program that the runtime starts again as a container's init, too.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "init":
		runtime.Init()
	case os.Geteuid() == 0 && os.Getenv(inside) == "":
		os.Exit(again())
	case os.Geteuid() == 0:
		if err := setUp(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// again runs this program in a network and a mount namespace of its own: bridges and mounts of the tests go with it.
func again() int {
	dir, err := os.MkdirTemp("", "interchange-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// setUp gives CRIU a /run on tmpfs, the only place where it keeps what it found out about the kernel: 50 ms a start.
func setUp() error {
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return exec.Command("ip", "link", "set", "lo", "up").Run()
}
