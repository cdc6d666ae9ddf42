package main

import (
	"github.com/spf13/cobra"

	"github.com/livemigrate/migrate/internal/keeper"
)

// newKeeperCommand is what push, serve and receive start; nobody else calls it. Without an argument it is the source's.
func newKeeperCommand(g *globals) *cobra.Command {
	var order keeper.PeerOrder
	cmd := &cobra.Command{
		Use:    "keeper [SOCKET]",
		Hidden: true,
		Args:   usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return keeper.RunSource(cmd.Context())
			}
			order.Socket = args[0]
			order.Root, order.CRIU, order.SystemdCgroup, order.Debug = g.root, g.criu, g.systemdCgroup, g.debug
			return keeper.RunPeer(cmd.Context(), &order)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&order.Journals, "journals", keeper.DefaultJournals, "directory of journals")
	bundlesFlag(flags, &order.Bundles)
	feedFlag(flags, &order.Feed)
	networkHookFlag(flags, &order.NetworkHook)
	tlsFlags(flags, &order.Certificates)
	allowFlag(flags, &order.Allow)
	limitFlags(flags, &order.Limits)
	return cmd
}
