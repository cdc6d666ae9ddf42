package main

import (
	"context"
	"fmt"
	"os"

	"github.com/livemigrate/migrate/runtime"
	"github.com/spf13/cobra"
)

func newCreateCommand(g *globals) *cobra.Command {
	var process processFlags
	var bundle bundleFlags
	cmd := &cobra.Command{
		Use:   "create [flags] CONTAINER",
		Short: "Create a container",
		Long:  "Create a container of a bundle, a directory with a config.json and a root filesystem. Its program does not run before start.",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			process.detach = true
			if err := create(cmd.Context(), g, args[0], &process, &bundle); err != nil {
				return fmt.Errorf("%s create failed: %w", cmd.Root().Name(), err)
			}
			return nil
		},
	}
	process.add(cmd.Flags())
	bundle.add(cmd)
	return cmd
}

func create(ctx context.Context, g *globals, id string, process *processFlags, bundle *bundleFlags) error {
	if id == "" {
		return errEmptyID
	}
	plan, err := bundle.plan()
	if err != nil {
		return err
	}
	o, err := createOptions(process, plan)
	if err != nil {
		return err
	}
	if o.ConsoleSocket, err = dial(process.consoleSocket); err != nil {
		return err
	}
	rt, err := g.runtime()
	if err != nil {
		return err
	}
	_, err = rt.Create(ctx, id, plan, o)
	return err
}

// createOptions are what the flags say; without a terminal the standard streams are our own.
func createOptions(process *processFlags, plan *runtime.Plan) (o *runtime.CreateOptions, err error) {
	terminal := plan.Spec.Process.Terminal
	if err := process.check(terminal); err != nil {
		return nil, err
	}
	o = &runtime.CreateOptions{Notify: fromServiceManager()}
	if !terminal {
		o.Stdin, o.Stdout, o.Stderr = os.Stdin, os.Stdout, os.Stderr
	}
	if o.ExtraFiles, o.ListenFDs, err = extraFiles(process.preserveFDs); err != nil {
		return nil, err
	}
	if o.PidFile, err = process.absolutePidFile(); err != nil {
		return nil, err
	}
	o.PidfdSocket, err = dial(process.pidfdSocket)
	return o, err
}
