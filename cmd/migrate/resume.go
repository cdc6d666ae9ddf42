package main

import "github.com/spf13/cobra"

func newResumeCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "resume CONTAINER",
		Short: "Resume all processes of a paused container",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.container(args[0])
			if err != nil {
				return err
			}
			return c.Resume(cmd.Context())
		},
	}
}
