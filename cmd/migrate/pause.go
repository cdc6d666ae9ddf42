package main

import "github.com/spf13/cobra"

func newPauseCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "pause CONTAINER",
		Short: "Suspend all processes inside a container",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.container(args[0])
			if err != nil {
				return err
			}
			return c.Pause(cmd.Context())
		},
	}
}
