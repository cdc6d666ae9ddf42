package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/livemigrate/migrate"
)

func newResolveCommand(g *globals) *cobra.Command {
	var (
		opts              migrate.ResolveOptions
		forceSrc, forcePr bool
	)
	cmd := &cobra.Command{
		Use:   "resolve ID",
		Short: "End an interrupted move",
		Long: `End an interrupted move, on either host, from the journals of both sides.

A container that stands still because the processes that gave it its memory were killed is given the rest.

When the other host is gone for good, fence it first, then say which side lives on: --force-source or --force-peer.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case forceSrc && forcePr:
				return usageError(errors.New("--force-source and --force-peer exclude each other"))
			case forceSrc:
				opts.Force = migrate.ForceSource
			case forcePr:
				opts.Force = migrate.ForcePeer
			}
			opts.Host = g.host()
			fed, err := migrate.Refeed(cmd.Context(), args[0], opts.Host)
			if err != nil {
				return err
			}
			outcome, err := migrate.Resolve(cmd.Context(), args[0], &opts)
			switch {
			case fed && errors.Is(err, migrate.ErrNoMove):
				fmt.Fprintln(cmd.OutOrStdout(), args[0], "has all its memory")
				return nil
			case err != nil && outcome == migrate.Unknown && errors.Is(err, migrate.ErrOutcomeUnknown):
				return &exitError{code: outcome.ExitCode(), err: err}
			case err != nil && outcome == migrate.Moved:
				return fmt.Errorf("%s runs at the peer: %w", args[0], err)
			case err != nil:
				return err
			case outcome == migrate.Moved:
				fmt.Fprintln(cmd.OutOrStdout(), args[0], "runs at the peer")
			default:
				fmt.Fprintln(cmd.OutOrStdout(), args[0], "runs at the source")
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&forceSrc, "force-source", false, "the peer is gone and fenced: the container runs on here")
	flags.BoolVar(&forcePr, "force-peer", false, "it runs at the peer: remove the copy here")
	flags.DurationVar(&opts.Patience, "retry", 10*time.Second, "how long to try to reach the peer")
	networkHookFlag(flags, &g.networkHook)
	tlsFlags(flags, &opts.Certificates)
	return cmd
}
