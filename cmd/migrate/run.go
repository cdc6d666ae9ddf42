package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/livemigrate/migrate/internal/sdnotify"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/runtime"
	"github.com/spf13/cobra"
)

type runFlags struct {
	process     processFlags
	bundle      bundleFlags
	keep        bool
	noSubreaper bool
	monitor     monitorFlags
}

func newRunCommand(g *globals) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] CONTAINER",
		Short: "Create and run a container",
		Long:  "Create a container of a bundle and run its program. In the foreground the exit status is the program's, and the container is deleted after it.",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			status, err := runContainer(cmd.Context(), g, args[0], &f)
			if err != nil {
				return fmt.Errorf("%s run failed: %w", cmd.Root().Name(), err)
			}
			return exit(status)
		},
	}
	f.process.add(cmd.Flags())
	f.process.addDetach(cmd.Flags())
	f.bundle.add(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.keep, "keep", false, "do not delete the container after it exits")
	flags.BoolVar(&f.noSubreaper, "no-subreaper", false, "disable the use of the subreaper used to reap reparented processes")
	f.monitor.add(flags)
	return cmd
}

func runContainer(ctx context.Context, g *globals, id string, f *runFlags) (status int, err error) {
	if id == "" {
		return 0, errEmptyID
	}
	plan, err := f.bundle.plan()
	if err != nil {
		return 0, err
	}
	rt, err := g.runtime()
	if err != nil {
		return 0, err
	}
	if err := f.monitor.check(f.process.detach); err != nil {
		return 0, err
	}
	switch {
	case f.monitor.logFile != "":
		return 0, runMonitored(ctx, g, rt, id, plan, f)
	case f.process.detach:
		return 0, runDetached(ctx, g, rt, id, plan, f)
	}
	return runForeground(ctx, g, rt, id, plan, f)
}

func runDetached(ctx context.Context, g *globals, rt *runtime.Runtime, id string, plan *runtime.Plan, f *runFlags) error {
	o, err := createOptions(&f.process, plan)
	if err != nil {
		return err
	}
	if o.ConsoleSocket, err = dial(f.process.consoleSocket); err != nil {
		return err
	}
	_, err = createAndStart(ctx, rt, id, plan, o, func(c *runtime.Container) error { return startUntilReady(ctx, c, g.log) })
	return err
}

// createAndStart leaves nothing of a container that could not be started.
func createAndStart(
	ctx context.Context, rt *runtime.Runtime, id string, plan *runtime.Plan, o *runtime.CreateOptions, start func(*runtime.Container) error,
) (*runtime.Container, error) {
	c, err := rt.Create(ctx, id, plan, o)
	if err != nil {
		return nil, err
	}
	err = start(c)
	if err != nil {
		return nil, errors.Join(err, c.Delete(context.WithoutCancel(ctx), true))
	}
	return c, nil
}

func runForeground(ctx context.Context, g *globals, rt *runtime.Runtime, id string, plan *runtime.Plan, f *runFlags) (status int, err error) {
	o, err := createOptions(&f.process, plan)
	if err != nil {
		return 0, err
	}
	uid, gid, err := plan.HostRoot()
	if err != nil {
		return 0, err
	}
	io, err := newStdio(plan.Spec.Process.Terminal, uid, gid)
	if err != nil {
		return 0, err
	}
	defer io.Close()
	if !f.noSubreaper {
		if err := process.BecomeSubreaper(); err != nil {
			return 0, err
		}
	}
	o.Stdin, o.Stdout, o.Stderr, o.ConsoleSocket = io.Stdin, io.Stdout, io.Stderr, io.Console
	signals := newForeground(g.log)
	var relay *sdnotify.Relay
	c, err := createAndStart(ctx, rt, id, plan, o, func(c *runtime.Container) (err error) {
		if err := io.connect(); err != nil {
			return err
		}
		relay, err = startNotifying(ctx, c, os.Getpid(), g.log) // whom the service manager watches
		return err
	})
	if err != nil {
		return 0, err
	}
	if relay != nil {
		defer func() {
			if err := relay.Close(); err != nil { // the exit status is the program's, whoever heard its last words
				g.log.Warn("the service manager did not hear all that the container said", "error", err)
			}
		}()
	}
	// From here on the container decides when it ends: SIGINT and SIGTERM are forwarded.
	ctx = context.WithoutCancel(ctx)
	return attend(ctx, c, io, signals, f.keep)
}

// attend stays with the container of this program until it has ended, and deletes it unless it is to be kept.
func attend(ctx context.Context, c *runtime.Container, io *stdio, signals *foreground, keep bool) (status int, err error) {
	err = io.connect()
	if err == nil {
		deliver := func(s syscall.Signal) error { return c.Signal(ctx, s, false) }
		status, err = signals.wait(c.State().InitProcessPid, deliver, io.resize)
	}
	if err != nil {
		return 0, errors.Join(err, c.Delete(ctx, true))
	}
	if keep {
		return status, nil
	}
	return status, c.Delete(ctx, true)
}
