package main

import (
	"github.com/spf13/cobra"

	"github.com/livemigrate/migrate/restore"
)

// newLazyPagesCommand is the process that restore --lazy-pages leaves behind until the container has its memory; nobody else
// starts it.
func newLazyPagesCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:    "lazy-pages",
		Hidden: true,
		Args:   exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			rt, err := g.runtime()
			if err != nil {
				return err
			}
			return restore.Feed(cmd.Context(), rt, g.log)
		},
	}
}
