package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/livemigrate/migrate"
	"github.com/livemigrate/migrate/internal/keeper"
)

func newServeCommand(g *globals) *cobra.Command {
	var opts migrate.ServeOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Receive containers from peers",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Host = g.host()
			opts.Bound = func(address string) { fmt.Fprintln(cmd.OutOrStdout(), "listening on", address) }
			return migrate.Serve(cmd.Context(), &opts)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.Listen, "listen", "tls://:7440", "where to listen: tls://[host]:port or unix:///path")
	bundlesFlag(flags, &opts.Bundles)
	networkHookFlag(flags, &g.networkHook)
	tlsFlags(flags, &opts.Certificates)
	allowFlag(flags, &opts.Allow)
	limitFlags(flags, &opts.Limits)
	return cmd
}

// limitFlags are what peers may take of this host.
func limitFlags(flags *pflag.FlagSet, l *migrate.Limits) {
	flags.IntVar(&l.Moves, "max-moves", keeper.DefaultMoves, "receive so many containers at once (0: the default)")
	flags.Var((*size)(&l.Size), "max-size", "receive no container whose files and memory take more than this, such as 64G (default no limit)")
	flags.DurationVar(&l.Time, "max-time", 0, "end a move that is not committed after so long (default no limit)")
}

// size is a flag's number of bytes.
type size int64

func (s *size) String() string { return strconv.FormatInt(int64(*s), 10) }
func (s *size) Type() string   { return "size" }

func (s *size) Set(text string) error {
	n, err := parseSize(text)
	if err != nil || n < 0 {
		return errors.Join(fmt.Errorf("want a size such as 64G"), err)
	}
	*s = size(n)
	return nil
}

func allowFlag(flags *pflag.FlagSet, names *[]string) {
	flags.StringArrayVar(names, "allow", nil, "take containers from the owner of this certificate `name` (tls://; repeatable; default: of every one of the authority)")
}

// networkHookFlag is for whoever makes, or ends, a container on this host.
func networkHookFlag(flags *pflag.FlagSet, program *string) {
	flags.StringVar(program, "network-hook", envOr("MIGRATE_NETWORK_HOOK", ""), "program that connects the network namespaces of containers that have one by path")
}

func bundlesFlag(flags *pflag.FlagSet, bundles *string) {
	flags.StringVar(bundles, "bundles", envOr("MIGRATE_BUNDLES", "/var/lib/migrate/bundles"), "directory that containers are received in")
}

// feedFlag turns the memory engine off, to find out what it has to do with a fault; so it is not shown. Either host may: serve
// and receive hand the variable on to their keepers.
func feedFlag(flags *pflag.FlagSet, feed *bool) {
	flags.BoolVar(feed, "feed", envOr("MIGRATE_FEED", "1") == "1", "send memory in pages; else in CRIU's images")
	_ = flags.MarkHidden("feed") // it is there
}

// tlsFlags are the same for whoever connects and whoever listens: both sides prove who they are.
func tlsFlags(flags *pflag.FlagSet, files *migrate.Certificates) {
	flags.StringVar(&files.Cert, "tls-cert", envOr("MIGRATE_TLS_CERT", ""), "certificate of this host, PEM")
	flags.StringVar(&files.Key, "tls-key", envOr("MIGRATE_TLS_KEY", ""), "its private key, PEM")
	flags.StringVar(&files.CA, "tls-ca", envOr("MIGRATE_TLS_CA", ""), "authority that the other side's certificate must come from, PEM")
}
