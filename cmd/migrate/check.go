package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/livemigrate/migrate"
	"github.com/livemigrate/migrate/transport"
)

// exitBlocked is the exit code of a move that would fail, here and of push.
const exitBlocked = 4

func newCheckCommand(g *globals) *cobra.Command {
	var (
		opts   migrate.CheckOptions
		mode   string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "check [ID] [PEER]",
		Short: "Tell what would stop a move, before anything is touched",
		Long: `Tell what would stop a move: every obstacle with its cure, before anything is touched.

With a container and a peer both hosts are asked, and nothing is left at either. Without a peer it is about a move, or a
checkpoint, of the container as far as this host knows; without a container about this host. Exit codes: 0 it would work;
1 it could not be found out; 2 usage; 4 something stands against it.`,
		Args: usageArgs(cobra.MaximumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, peer := at(args, 0), at(args, 1)
			if err := checkCheck(peer, mode, &opts); err != nil {
				return usageError(err)
			}
			opts.Host = g.host()
			result, err := migrate.Check(cmd.Context(), id, peer, &opts)
			if result != nil && (err == nil || len(result.Findings) > 0) {
				if err := printCheck(cmd.OutOrStdout(), result, asJSON, err != nil); err != nil {
					return err
				}
			}
			if err == nil && !result.Movable {
				return exit(exitBlocked)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&mode, "mode", "auto", "how its memory is to move, as for push")
	flags.StringVar(&opts.Volumes, "volumes", "copy", "bind-mounted directories: copy, shared or refuse")
	tcpFlags(cmd, &opts.TCP)
	feedFlag(flags, &opts.Feed)
	flags.BoolVar(&asJSON, "json", false, "print one JSON object")
	tlsFlags(flags, &opts.Certificates)
	return cmd
}

func at(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}

// checkCheck finds what is wrong with the command line.
func checkCheck(peer, mode string, o *migrate.CheckOptions) (err error) {
	if peer != "" {
		if _, err := transport.ParseAddress(peer); err != nil {
			return err
		}
	}
	if o.Mode, err = migrate.ParseMode(mode); err != nil {
		return fmt.Errorf("--%w", err)
	}
	if o.Volumes != "copy" && o.Volumes != "shared" && o.Volumes != "refuse" {
		return fmt.Errorf("--volumes %s: want copy, shared or refuse", o.Volumes)
	}
	return nil
}

// printCheck is the result as JSON, or one line for each finding and a last one that sums up.
func printCheck(out io.Writer, result *migrate.CheckResult, asJSON, partial bool) error {
	if asJSON {
		return json.NewEncoder(out).Encode(result)
	}
	count := make(map[migrate.Severity]int)
	for _, f := range result.Findings {
		count[f.Severity]++
		fmt.Fprintf(out, "%-8s %s: %s [%s]\n", f.Severity, f.Host, f, f.Code)
	}
	switch {
	case partial: // the error says the rest
	case !result.Movable:
		fmt.Fprintf(out, "it would not work: blockers %d, warnings %d\n", count[migrate.Blocker], count[migrate.Warning])
	default:
		fmt.Fprintf(out, "nothing stands against it: warnings %d\n", count[migrate.Warning])
	}
	return nil
}
