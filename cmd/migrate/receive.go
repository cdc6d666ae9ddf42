package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/livemigrate/migrate"
	"github.com/livemigrate/migrate/transport"
)

func newReceiveCommand(g *globals) *cobra.Command {
	var opts migrate.ServeOptions
	cmd := &cobra.Command{
		Use:   "receive",
		Short: "Serve one connection on standard input and output (what ssh starts on the peer)",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := transport.StdioConn(os.Stdin, os.Stdout)
			if err != nil {
				return err
			}
			opts.Host = g.host()
			return migrate.Receive(cmd.Context(), conn, &opts)
		},
	}
	bundlesFlag(cmd.Flags(), &opts.Bundles)
	limitFlags(cmd.Flags(), &opts.Limits)
	networkHookFlag(cmd.Flags(), &g.networkHook)
	return cmd
}
