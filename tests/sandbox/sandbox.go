// Package sandbox runs a test program in mount, pid and network namespaces of its own: what the programs under test start
// and mount there goes with it, whatever happens.
//
// The test program runs three times: as it was started; as the first process of the namespaces, which reaps what it is
// left; and for the tests.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/testutil"
)

const (
	directory = "SANDBOX_DIRECTORY" // set in the second and third run: what Dir returns
	inside    = "SANDBOX_INSIDE"    // set in the third
	other     = "SANDBOX_RUNTIME"
)

// Dir is a directory that goes when the tests have ended. The name of its last element is nobody else's: cgroups beneath
// a group of that name go too.
func Dir() string { return os.Getenv(directory) }

// Runtime is the path of the runtime under test: migrate, built for these tests, or what the environment variable
// SANDBOX_RUNTIME names. Where a test fails with runc too, it is not migrate's fault.
func Runtime() string {
	if path := os.Getenv(other); path != "" {
		return path
	}
	return filepath.Join(Dir(), "migrate")
}

// Main is TestMain. Without root the tests run as they are, and are to skip themselves. What prepare makes in the directory
// is made before the namespaces are, where there is a network.
func Main(m *testing.M, prepare ...func(dir string) error) {
	run := func() (int, error) { return again(prepare) }
	switch {
	case os.Geteuid() != 0 || os.Getenv(inside) != "":
		run = func() (int, error) { return m.Run(), nil }
	case Dir() != "":
		run = firstProcess
	}
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// again builds the runtime and starts the namespaces.
func again(prepare []func(dir string) error) (code int, err error) {
	dir, err := os.MkdirTemp("", "sandbox-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, removeCgroups(filepath.Base(dir)), os.RemoveAll(dir)) }()
	// The root of a container's user namespace goes through it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	if _, err := Build(dir); err != nil {
		return 0, err
	}
	for _, step := range prepare {
		if err := step(dir); err != nil {
			return 0, err
		}
	}
	return Enter(directory + "=" + dir)
}

// Enter runs this test binary in mount, pid and network namespaces of its own, with env in its environment and the CRIU
// that works here on its PATH, and returns its exit status.
func Enter(env string) (int, error) {
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), env, "PATH="+PathWithCRIU(os.Getenv("PATH")))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
	}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// PathWithCRIU puts the CRIU that works here in front, for engines and runtimes that ask PATH.
func PathWithCRIU(path string) string {
	if found, err := criu.Locate(""); err == nil {
		return filepath.Dir(found) + ":" + path
	}
	return path
}

// firstProcess sets up the namespaces, starts the tests, and reaps.
func firstProcess() (int, error) {
	// On /run are sockets of shims, state of containers, and what CRIU found out about the kernel.
	for target, kind := range map[string]string{"/proc": "proc", "/run": "tmpfs"} {
		if err := syscall.Mount(kind, target, kind, 0, ""); err != nil {
			return 0, fmt.Errorf("mount %s: %w", target, err)
		}
	}
	// Engines write there, whatever store they are told to use.
	if err := Cover("/var/lib"); err != nil {
		return 0, err
	}
	if err := exec.CommandContext(context.Background(), "ip", "link", "set", "lo", "up").Run(); err != nil {
		return 0, fmt.Errorf("bring up loopback: %w", err)
	}
	return Again(inside + "=1")
}

// Again runs this test binary once more, with env in its environment, and reaps whatever ends meanwhile: it is for the first
// process of a pid namespace. It returns the exit status that a shell would name.
func Again(env string) (int, error) {
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   append(os.Environ(), env),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return 0, err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, os.NewSyscallError("wait4", err)
		case pid == child.Pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		case pid == child.Pid:
			return status.ExitStatus(), nil
		}
	}
}

// removeCgroups removes the groups of that name and all beneath them, whose processes are gone.
func removeCgroups(name string) error {
	var failed error
	for _, root := range testutil.Cgroups(name) {
		var groups []string
		_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				groups = append(groups, path)
			}
			return nil
		})
		for i := len(groups) - 1; i >= 0; i-- {
			if err := os.Remove(groups[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = errors.Join(failed, err)
			}
		}
	}
	return failed
}
