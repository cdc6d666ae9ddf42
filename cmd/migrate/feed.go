package main

import (
	"github.com/spf13/cobra"

	"github.com/livemigrate/migrate/internal/memory/feed"
)

// newFeedCommand is the process that gives restored processes their memory; a supervisor of package feed starts it, nobody
// else.
func newFeedCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:    "feed",
		Hidden: true,
		Args:   exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := feed.Serve(cmd.Context(), g.log)
			if feed.Hopeless(err) {
				return &exitError{code: feed.ExitHopeless, err: err}
			}
			return err
		},
	}
}
