package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/livemigrate/migrate"
)

// usageError ends the program with 2: the command line makes no sense.
func usageError(err error) error { return &exitError{code: 2, err: err} }

func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError(err)
		}
		return nil
	}
}

func envOr(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// host is this host as the library wants it.
func (g *globals) host() migrate.Host {
	return migrate.Host{Root: g.root, CRIU: g.criu, SystemdCgroup: g.systemdCgroup, NetworkHook: g.networkHook, Debug: g.debug, Log: g.log}
}
