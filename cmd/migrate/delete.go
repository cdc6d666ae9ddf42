package main

import (
	"errors"
	"fmt"

	"github.com/livemigrate/migrate/runtime"
	"github.com/spf13/cobra"
)

func newDeleteCommand(g *globals) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "delete [flags] CONTAINER",
		Short: "Delete all that there is of a container",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.container(args[0])
			if err == nil {
				return c.Delete(cmd.Context(), force)
			}
			_, corrupt := errors.AsType[*runtime.CorruptError](err)
			missing := errors.Is(err, runtime.ErrNotExist)
			if !missing && (!corrupt || !force) {
				return err
			}
			// A creation that was cut short leaves a directory without a state; it goes with or without force.
			rt, openErr := g.runtime()
			if openErr == nil {
				openErr = rt.Remove(cmd.Context(), args[0], force)
			}
			switch {
			case openErr != nil:
				return fmt.Errorf("%w; remove its state: %w", err, openErr)
			case force:
				return nil
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "forcibly delete the container if it is still running (uses SIGKILL)")
	return cmd
}
