// Package detached tests `migrate run --detach --log-file` on real containers: what the monitor promises, across a
// checkpoint too.
package detached

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/monitor"
	"github.com/livemigrate/migrate/restore"
	"github.com/livemigrate/migrate/runtime"
	"github.com/livemigrate/migrate/tests/sandbox"
)

// program is the path of the built command, and tells the second run of the test program from the first.
const program = "DETACHED_PROGRAM"

// TestMain is also what the runtime starts as a container's init, and the keeper of a restored container.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "init":
		runtime.Init()
	case len(os.Args) > 1 && os.Args[1] == "keeper":
		fmt.Fprintln(os.Stderr, keep(os.Args[2]))
		os.Exit(1)
	case os.Geteuid() == 0 && os.Getenv(program) == "":
		os.Exit(again())
	case os.Geteuid() == 0:
		if err := setUp(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// setUp gives CRIU what it needs: a loopback, and a /run on tmpfs, where alone it keeps what it found out about the kernel.
func setUp() error {
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// again builds the command, and runs this program in a network and a mount namespace of its own.
func again() int {
	dir, err := os.MkdirTemp("", "detached-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built, err := sandbox.Build(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), program+"="+built)
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

// order is what a keeper is to do.
type order struct {
	ID, Root, Bundle, Images, LogFile, Program string
	Offset                                     int64
}

// keep restores a container and becomes its monitor, as the keeper of a peer does. It returns only an error.
func keep(text string) error {
	ctx := context.Background()
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	rt, err := runtime.Open(&runtime.Options{Root: o.Root})
	if err != nil {
		return err
	}
	spec, err := runtime.LoadSpec(o.Bundle)
	if err != nil {
		return err
	}
	plan, err := runtime.Parse(o.Bundle, spec, nil)
	if err != nil {
		return err
	}
	path, err := criu.Locate("")
	if err != nil {
		return err
	}
	stdio, err := monitor.NewStdio(spec.Process.Terminal, false)
	if err != nil {
		return err
	}
	c, err := restore.Run(ctx, rt, o.ID, plan, nil, &restore.Options{
		ImagesDir: o.Images, CRIU: path,
		Stdin: stdio.Stdin, Stdout: stdio.Stdout, Stderr: stdio.Stderr, Console: stdio.TakeConsole,
		LogFile: o.LogFile, MonitorPid: os.Getpid(),
	})
	if err != nil {
		return err
	}
	return monitor.Exec(o.Program, []string{"monitor"}, &monitor.Config{
		ID: o.ID, StateDir: c.StateDir(), LogFile: o.LogFile, Terminal: spec.Process.Terminal,
		InitPid: c.InitPid(), Offset: o.Offset,
	}, stdio)
}
