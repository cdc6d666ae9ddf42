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
	"github.com/livemigrate/migrate/tests/sandbox"
)

// As root the test program runs three times: as it was started; as pid 1 of namespaces of its own; and for the tests.
const (
	inside = "INTERCHANGE_INSIDE" // set in the second and third: a directory that goes with them
	tests  = "INTERCHANGE_TESTS"  // set in the third
)

// TestMain is the program that the runtime starts again as a container's init, too.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "init":
		runtime.Init()
	case os.Geteuid() != 0 || os.Getenv(tests) != "":
		os.Exit(m.Run())
	}
	run := again
	if os.Getenv(inside) != "" {
		run = firstProcess
	}
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// again runs this program in namespaces of its own. Bridges, mounts and processes of the tests go with them, and no pid
// of a restored container is another's.
func again() (code int, err error) {
	dir, err := os.MkdirTemp("", "interchange-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
	}
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// firstProcess reaps what the tests leave, so that a child that they should have reaped themselves is seen.
func firstProcess() (code int, err error) {
	mounts := []struct{ kind, target string }{
		{"proc", "/proc"},
		// CRIU keeps what it finds out about the kernel in /run, but only on tmpfs: 50 ms a start.
		{"tmpfs", "/run"},
	}
	for _, m := range mounts {
		if err := syscall.Mount(m.kind, m.target, m.kind, 0, ""); err != nil {
			return 0, fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := exec.Command("ip", "link", "set", "lo", "up").Run(); err != nil {
		return 0, err
	}
	return sandbox.Again(tests + "=1")
}
