package main

import "github.com/spf13/cobra"

func newStartCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "start CONTAINER",
		Short: "Run the program of a created container",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.container(args[0])
			if err != nil {
				return err
			}
			return startUntilReady(cmd.Context(), c, g.log)
		},
	}
}
